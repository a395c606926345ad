"""Means with intervals, and the differences to the baseline with a verdict for each."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ..measure.results import StudyResults
from ..measure.statistics import (
    Bootstrap,
    Difference,
    Interval,
    Verdict,
    compare_resampled,
    distinguishable,
    mean_interval,
    paired_difference,
    resample,
)
from .test_set import TestSet
from .words import number, plural

__all__ = ["Comparison", "best_variant", "compare", "difference", "interval"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline on the headline metric."""

    variant: str
    seeds: Difference  # over the seeds that both have
    images: Bootstrap | None  # over resampled test images; None without predictions or test set
    verdict: Verdict

    @property
    def intervals(self) -> str:
        """The intervals, for example "95 % CI −0.5 … 2.1 over 3 seeds; 0.2 … 1.4 over resampled test images"."""
        over = plural(self.seeds.n, "seed")
        parts = [f"{over}, hence no interval" if self.seeds.n < 2 else f"95 % CI {_range(self.seeds)} over {over}"]
        if self.images is not None and math.isfinite(self.images.low):
            parts.append(f"{_range(self.images)} over resampled test images (paired bootstrap)")
        return "; ".join(parts)


def interval(results: StudyResults, variant: str, metric: str) -> Interval | None:
    """Return the mean over seeds with its 95 % interval, or None without a value."""
    values = list(results.values(variant, metric).values())
    return mean_interval(values) if values else None


def difference(results: StudyResults, variant: str, baseline: str, metric: str) -> Difference | None:
    """Return the mean difference over the seeds that both variants have, or None if there is no such seed."""
    ours, theirs = results.values(variant, metric), results.values(baseline, metric)
    shared = [seed for seed in ours if seed in theirs]
    return paired_difference([ours[s] for s in shared], [theirs[s] for s in shared]) if shared else None


def best_variant(results: StudyResults, metric: str) -> str | None:
    """Return the variant with the highest mean if its differences to all others have intervals above zero."""
    means = {name: found.mean for name in results.variants if (found := interval(results, name, metric))}
    if len(means) < 2:
        return None
    best = max(means, key=means.__getitem__)
    found = [difference(results, best, other, metric) for other in means if other != best]
    return best if all(d is not None and d.low > 0 for d in found) else None


def compare(results: StudyResults, test_set: TestSet | None) -> list[Comparison]:
    """Compare each variant with the baseline on the headline metric; without a test set, images are not resampled."""
    resampled = _Resampled(results, test_set)
    found: dict[str, tuple[Difference, Bootstrap | None]] = {}
    for name in results.variants:
        seeds = None if name == results.baseline else difference(results, name, results.baseline, results.headline)
        if seeds is not None:
            found[name] = seeds, resampled.difference(name)
    verdicts = distinguishable(found, results.baseline, results.label(results.headline))
    return [Comparison(name, *bounds, verdicts[name]) for name, bounds in found.items()]


class _Resampled:
    """Scores on resampled test images, which are computed once per variant."""

    def __init__(self, results: StudyResults, test_set: TestSet | None) -> None:
        self._results = results
        self._test_set = test_set
        self._scores: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

    def difference(self, variant: str) -> Bootstrap | None:
        """Return the difference to the baseline over shared seeds; None, with a warning, if predictions are missing."""
        if self._test_set is None:
            return None
        names = (variant, self._results.baseline)
        ours, theirs = ({cell.seed for cell in self._results.of(name)} for name in names)
        seeds = tuple(sorted(ours & theirs))
        try:
            return compare_resampled(*(self._of(self._test_set, name, seeds) for name in names))
        except UserError as e:
            logger.warning("no bootstrap over images for %s: %s", variant, e)
            return None

    def _of(self, test_set: TestSet, variant: str, seeds: tuple[int, ...]) -> np.ndarray:
        if (variant, seeds) not in self._scores:
            metric = self._results.headline
            predictions = [test_set.predictions(cell) for cell in self._results.of(variant) if cell.seed in seeds]
            self._scores[variant, seeds] = resample(test_set.evaluator, predictions, [metric])[metric]
        return self._scores[variant, seeds]


def _range(bounds: Interval | Bootstrap) -> str:
    return f"{number(bounds.low)} … {number(bounds.high)}"
