"""How many resamples can find a difference, and how many seeds would, from the spread that was measured."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy import stats

from .statistics import ALPHA, RESAMPLES

__all__ = ["MOST_SEEDS", "resamples_for", "seeds_to_tell", "spread_interval"]

MOST_SEEDS = 1000
_POWER = 0.8  # the share of studies that would find the difference


def spread_interval(spread: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a standard deviation that was estimated from n values, at least 2, of a normal law."""
    high, low = stats.chi2.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n - 1)
    return spread * math.sqrt((n - 1) / low), spread * math.sqrt((n - 1) / high)


def resamples_for(comparisons: int) -> int:
    """Return how many resamples a family of comparisons needs.

    No p-value of B resamples is below 2 / (B + 1), and one of this number is below 0.05 after Holm's correction.
    """
    return max(RESAMPLES, 100 * comparisons)


def seeds_to_tell(difference: float, spread: float, alpha: float = ALPHA) -> int | None:
    """Return how many paired seeds a two-sided t-test needs to find a difference in four of five studies.

    Args:
        difference: the true mean difference, above 0.
        spread: the standard deviation of the differences between seeds.
        alpha: the level of the test.

    Returns:
        The number of seeds, at least 2; None if more than `MOST_SEEDS` are needed.
    """
    if spread < 1e-6 * difference:  # where the noncentral t law is no longer computed
        return 2

    def suffice(n: int) -> bool:
        limit = stats.t.ppf(1 - alpha / 2, n - 1)
        return bool(stats.nct.sf(limit, n - 1, difference / spread * math.sqrt(n)) >= _POWER)

    most = 2
    while not suffice(most):
        if most == MOST_SEEDS:
            return None
        most = min(2 * most, MOST_SEEDS)
    return bisect_left(range(most), True, lo=most // 2 if most > 2 else 2, key=suffice)
