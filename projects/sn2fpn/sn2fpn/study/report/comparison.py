"""What the numbers say: means with intervals, and differences to the baseline with the words for them."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ..results import StudyResults
from ..statistics import (
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
from .stored import TestSet
from .words import number, plural

__all__ = ["Comparison", "best_variant", "compare", "difference", "interval"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline on the headline metric.

    Attributes:
        seeds: the mean difference over the seeds that both have.
        images: the same difference over resampled test images; None where predictions or set are not at hand.
    """

    variant: str
    baseline: str
    seeds: Difference
    images: Bootstrap | None
    verdict: Verdict

    @property
    def intervals(self) -> str:
        """ "95 % CI −0.5 … 2.1 over 3 seeds; 0.2 … 1.4 over resampled test images"."""
        over = plural(self.seeds.n, "seed")
        parts = [f"{over}, no interval" if self.seeds.n < 2 else f"95 % CI {_range(self.seeds)} over {over}"]
        if self.images is not None and math.isfinite(self.images.low):
            parts.append(f"{_range(self.images)} over resampled test images (paired bootstrap)")
        return "; ".join(parts)


def interval(results: StudyResults, variant: str, metric: str) -> Interval | None:
    """Mean over seeds with its 95 % interval; None without a value."""
    values = list(results.values(variant, metric).values())
    return mean_interval(values) if values else None


def difference(results: StudyResults, variant: str, baseline: str, metric: str) -> Difference | None:
    """Mean of the differences of equal seeds, with its 95 % interval; None where no seed has both."""
    ours, theirs = results.values(variant, metric), results.values(baseline, metric)
    shared = [seed for seed in ours if seed in theirs]
    return paired_difference([ours[s] for s in shared], [theirs[s] for s in shared]) if shared else None


def best_variant(results: StudyResults, metric: str) -> str | None:
    """The variant with the highest mean, if the interval of its difference to each other one excludes zero."""
    means = {name: found.mean for name in results.variants if (found := interval(results, name, metric))}
    if len(means) < 2:
        return None
    best = max(means, key=means.__getitem__)
    for other in means.keys() - {best}:
        found = difference(results, best, other, metric)
        if found is None or not found.low > 0:
            return None
    return best


def compare(results: StudyResults, test_set: TestSet | None) -> list[Comparison]:
    """Each variant against the baseline on the headline metric, in the study's order.

    Args:
        test_set: the set behind the stored predictions; None: nothing is resampled.
    """
    resampled = _Resampled(results, test_set)
    found: dict[str, tuple[Difference, Bootstrap | None]] = {}
    for name in results.variants:
        seeds = None if name == results.baseline else difference(results, name, results.baseline, results.headline)
        if seeds is not None:
            found[name] = seeds, resampled.difference(name)
    verdicts = distinguishable(found, results.baseline, results.label(results.headline))
    return [Comparison(name, results.baseline, *bounds, verdicts[name]) for name, bounds in found.items()]


class _Resampled:
    """Scores on resampled test images; each variant's are computed once."""

    def __init__(self, results: StudyResults, test_set: TestSet | None) -> None:
        self._results = results
        self._test_set = test_set
        self._scores: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

    def difference(self, variant: str) -> Bootstrap | None:
        """To the baseline, over the seeds that both have; None where something is missing, with a warning."""
        ours, theirs = ({cell.seed for cell in self._results.of(name)} for name in (variant, self._results.baseline))
        seeds = tuple(sorted(ours & theirs))
        if self._test_set is None:
            return None
        try:
            return compare_resampled(*(self._of(name, seeds) for name in (variant, self._results.baseline)))
        except UserError as e:
            logger.warning("no bootstrap over images for %s: %s", variant, e)
            return None

    def _of(self, variant: str, seeds: tuple[int, ...]) -> np.ndarray:
        assert self._test_set is not None
        if (variant, seeds) not in self._scores:
            metric = self._results.headline
            predictions = [self._test_set.predictions(c) for c in self._results.of(variant) if c.seed in seeds]
            self._scores[variant, seeds] = resample(self._test_set.evaluator, predictions, [metric])[metric]
        return self._scores[variant, seeds]


def _range(bounds: Interval | Bootstrap) -> str:
    return f"{number(bounds.low)} … {number(bounds.high)}"
