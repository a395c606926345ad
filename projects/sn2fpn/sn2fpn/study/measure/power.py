"""How many seeds would find a difference, from the spread of the differences that were measured."""

from __future__ import annotations

import math

from scipy import stats

from .statistics import ALPHA

__all__ = ["MOST_SEEDS", "seeds_to_tell", "spread_interval"]

MOST_SEEDS = 1000
_POWER = 0.8  # the share of studies that would find the difference


def spread_interval(spread: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a standard deviation that was estimated from n values, at least 2, of a normal law."""
    high, low = stats.chi2.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n - 1)
    return spread * math.sqrt((n - 1) / low), spread * math.sqrt((n - 1) / high)


def seeds_to_tell(difference: float, spread: float, alpha: float = ALPHA) -> int | None:
    """Return how many paired seeds a two-sided t-test needs to find a difference in four of five studies.

    Args:
        difference: the true mean difference, above 0.
        spread: the standard deviation of the differences between seeds.
        alpha: the level of the test.

    Returns:
        The number of seeds, at least 2; None if more than `MOST_SEEDS` are needed.
    """
    if spread == 0:
        return 2
    for n in range(2, MOST_SEEDS + 1):
        limit = stats.t.ppf(1 - alpha / 2, n - 1)
        if stats.nct.sf(limit, n - 1, difference / spread * math.sqrt(n)) >= _POWER:
            return n
    return None
