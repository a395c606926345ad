"""Means with intervals, and the differences to the baseline with a verdict for each."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...errors import UserError, counted
from ..measure.power import resamples_for
from ..measure.results import StudyResults
from ..measure.statistics import (
    Bootstrap,
    Interval,
    Verdict,
    compare_resampled,
    distinguishable,
    mean_interval,
    paired_difference,
    resample,
)
from .content import ABSENT, number
from .samples import TestSet

__all__ = ["Comparison", "Ratio", "best_variant", "compare", "cost_ratio", "difference", "interval", "limits"]

_TIMES = {"latency_ms": "inference_s", "train_images_per_s": "train_step_s"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline on the headline metric."""

    variant: str
    seeds: Interval  # over the seeds that both have
    images: Bootstrap  # over resampled test images; NaN without predictions or test set
    verdict: Verdict

    @property
    def intervals(self) -> str:
        """The known intervals as a sentence, "" without any.

        For example "The 95 % interval is −0.5 … 2.1 over 3 seeds and 0.2 … 1.4 over resampled test images."
        """
        parts = [f"{limits(self.seeds)} over {counted(self.seeds.n, 'seed')}"] if self.seeds.n > 1 else []
        if math.isfinite(self.images.low):
            parts.append(f"{limits(self.images)} over resampled test images")
        return f"The 95 % interval is {' and '.join(parts)}." if parts else ""


def interval(results: StudyResults, variant: str, metric: str) -> Interval:
    """Return the mean over seeds with its 95 % interval."""
    return mean_interval(list(results.values(variant, metric).values()))


def difference(results: StudyResults, variant: str, baseline: str, metric: str) -> Interval:
    """Return the mean difference over the seeds that both variants have, with its 95 % interval."""
    ours, theirs = results.values(variant, metric), results.values(baseline, metric)
    shared = [seed for seed in ours if seed in theirs]
    return paired_difference([ours[seed] for seed in shared], [theirs[seed] for seed in shared])


def best_variant(results: StudyResults, metric: str, comparisons: Sequence[Comparison]) -> str | None:
    """Return the variant with the highest mean if its differences to all others have intervals above zero.

    For the headline metric, its differences to or from the baseline must also count in the conclusions.
    """
    means = {name: found.mean for name in results.variants if (found := interval(results, name, metric)).n}
    if len(means) < 2:
        return None
    best = max(means, key=means.__getitem__)
    judged = {c.variant: c.verdict.distinguishable for c in comparisons} if metric == results.headline else {}
    agreed = judged.get(best, True) if best != results.baseline else all(judged.values())
    clear = all(difference(results, best, other, metric).low > 0 for other in means if other != best)
    return best if clear and agreed else None


def compare(
    results: StudyResults, test_set: TestSet | None, against: str | None = None, variants: Sequence[str] | None = None
) -> list[Comparison]:
    """Compare variants with one of them on the headline metric.

    Args:
        results: the study.
        test_set: the test set; without it, images are not resampled.
        against: the variant that the others are compared with; None takes the baseline.
        variants: the other variants; None takes all.
    """
    baseline, metric = against or results.baseline, results.headline
    others = [name for name in variants or results.variants if name != baseline]

    def over_images(variant: str) -> Bootstrap:
        if test_set is None:
            return Bootstrap()
        ours, theirs = ({cell.seed for cell in results.of(name)} for name in (variant, baseline))
        key = tuple(sorted(ours & theirs)), resamples_for(len(over_seeds))
        try:
            return compare_resampled(*(_resampled(results, test_set, name, *key) for name in (variant, baseline)))
        except UserError as e:
            logger.warning("no bootstrap over images for %s: %s", variant, e)
            return Bootstrap()

    over_seeds = {name: seeds for name in others if (seeds := difference(results, name, baseline, metric)).n}
    found = {name: (seeds, over_images(name)) for name, seeds in over_seeds.items()}
    verdicts = distinguishable(found, baseline, results.label(metric))
    return [Comparison(name, *bounds, verdicts[name]) for name, bounds in found.items()]


def _resampled(
    results: StudyResults, test_set: TestSet, variant: str, seeds: tuple[int, ...], resamples: int
) -> np.ndarray:
    """Return a variant's scores on the test images and on resampled ones; they are computed once for each variant."""
    key = (variant, seeds, resamples)
    if key not in test_set.resampled:
        cells = [cell for cell in results.of(variant) if cell.seed in seeds]
        predictions = [test_set.predictions(cell) for cell in cells]
        scores = resample(test_set.evaluator(cells[0]), predictions, [results.headline], resamples)
        test_set.resampled[key] = scores[results.headline]
    return test_set.resampled[key]


class Ratio(NamedTuple):
    """A cost of a variant divided by that of another one. Times have a range over the rounds of their measurement."""

    value: float  # NaN where one of the costs is not known
    low: float
    high: float

    def __str__(self) -> str:
        between = "" if self.low == self.high else f" ({number(self.low, 2)} … {number(self.high, 2)})"
        return f"{number(self.value, 2)}×{between}"


def cost_ratio(results: StudyResults, variant: str, against: str, name: str) -> Ratio:
    """Return the ratio of a cost, by its name in `StudyResults.measured`.

    Of times it is the median over the rounds, which compares times that were measured right after each other.
    """
    if name in _TIMES:
        ours, theirs = (np.array(results.times(v, _TIMES[name])) for v in (variant, against))
        if len(ours) and len(ours) == len(theirs) and (ours > 0).all() and (theirs > 0).all():
            ratios = theirs / ours if name == "train_images_per_s" else ours / theirs
            return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))
    ours, theirs = results.measured(variant)[name], results.measured(against)[name]
    value = ours / theirs if theirs else math.nan
    return Ratio(value, value, value)


def limits(bounds: Interval | Bootstrap) -> str:
    """Return an interval such as "−2.7 … 1.3", with more digits where one would show a limit as zero.

    An interval that is not known is a dash.
    """
    if not math.isfinite(bounds.low):
        return ABSENT
    least = min((abs(limit) for limit in (bounds.low, bounds.high) if limit), default=1.0)
    digits = next((n for n in (1, 2, 3) if least >= 0.5 * 0.1**n), 4)
    return f"{number(bounds.low, digits)} … {number(bounds.high, digits)}"
