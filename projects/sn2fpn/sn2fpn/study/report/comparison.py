"""What the numbers say: means with intervals, differences to the baseline, and plain words about both."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ...errors import UserError
from ..results import StudyResults
from ..statistics import Bootstrap, Interval, bootstrap_difference, mean_interval, paired_difference
from .stored import TestSet, read_predictions
from .words import number, plural, signed

__all__ = ["Comparison", "best_variant", "compare", "difference", "interval"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline on the headline metric.

    Attributes:
        label: of the metric.
        seeds: the mean paired difference over seeds that both have, with its interval where there are two or more.
        images: the bootstrap over test images of those seeds; None where the predictions or the set are not there.
        verdict: "distinguishable", "noise" or "one seed".
    """

    variant: str
    baseline: str
    label: str
    seeds: Interval
    images: Bootstrap | None

    @property
    def verdict(self) -> str:
        if self.images is not None and _around_zero(self.images.low, self.images.high):
            return "noise"
        if self.seeds.n < 2:
            return "one seed"
        return "noise" if _around_zero(self.seeds.low, self.seeds.high) else "distinguishable"

    @property
    def numbers(self) -> str:
        """"+0.8 AP (95 % CI −0.5 … 2.1 over 3 seeds; bootstrap over images 0.2 … 1.4, p = 0.01)"."""
        over = plural(self.seeds.n, "seed")
        seeds = over if self.seeds.n < 2 else f"95 % CI {_range(self.seeds)} over {over}"
        images = "" if self.images is None else (
            f"; paired bootstrap over images {_range(self.images)}, p {_probability(self.images.p)}")
        return f"{signed(self.seeds.mean)} {self.label} ({seeds}{images})"

    @property
    def words(self) -> str:
        """The plain statement."""
        if self.verdict == "distinguishable":
            better = "better" if self.seeds.mean > 0 else "worse"
            basis = "" if self.images is not None else " (over seeds; not tested over images)"
            return f"{better} than {self.baseline}, distinguishable from noise{basis}"
        if self.verdict == "one seed":
            return "one seed: noise between trainings is unknown, so nothing can be said about the method"
        apart = [source for source, bounds in (("between seeds", self.seeds), ("of the test images", self.images))
                 if bounds is not None and bounds.low == bounds.low and _around_zero(bounds.low, bounds.high)]
        return f"not distinguishable from noise ({' and '.join(apart)})"


def interval(results: StudyResults, variant: str, metric: str) -> Interval | None:
    """Mean over seeds with its 95 % interval; None without a value."""
    values = list(results.values(variant, metric).values())
    return mean_interval(values) if values else None


def difference(results: StudyResults, variant: str, baseline: str, metric: str) -> Interval | None:
    """Mean of the differences of equal seeds, with its 95 % interval; None where no seed has both."""
    ours, theirs = results.values(variant, metric), results.values(baseline, metric)
    shared = [seed for seed in ours if seed in theirs]
    return paired_difference([ours[s] for s in shared], [theirs[s] for s in shared]) if shared else None


def best_variant(results: StudyResults, metric: str) -> str | None:
    """The variant with the highest mean, if its difference to each other one is distinguishable over seeds."""
    means = {name: found.mean for name in results.variants if (found := interval(results, name, metric))}
    if len(means) < 2:
        return None
    best = max(means, key=means.__getitem__)
    for other in means.keys() - {best}:
        found = difference(results, best, other, metric)
        if found is None or found.n < 2 or _around_zero(found.low, found.high):
            return None
    return best


def compare(results: StudyResults, test_set: TestSet | None) -> list[Comparison]:
    """Each variant against the baseline on the headline metric, in the study's order.

    Args:
        test_set: the set behind the stored predictions; None: no bootstrap over its images.
    """
    comparisons = []
    for name in results.variants:
        found = None if name == results.baseline else difference(results, name, results.baseline, results.headline)
        if found is not None:
            images = None if test_set is None else _bootstrap(results, name, test_set)
            comparisons.append(Comparison(name, results.baseline, results.label(results.headline), found, images))
    return comparisons


def _bootstrap(results: StudyResults, variant: str, test_set: TestSet) -> Bootstrap | None:
    ours, theirs = ({cell.seed: cell for cell in results.of(name)} for name in (variant, results.baseline))
    shared = [seed for seed in ours if seed in theirs]
    try:
        return bootstrap_difference(test_set.records, [read_predictions(ours[s]) for s in shared],
                                    [read_predictions(theirs[s]) for s in shared], results.headline)
    except UserError as e:
        logger.warning("no bootstrap over images for %s: %s", variant, e)
        return None


def _around_zero(low: float, high: float) -> bool:
    return low <= 0 <= high


def _range(bounds: Interval | Bootstrap) -> str:
    return f"{number(bounds.low)} … {number(bounds.high)}"


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"
