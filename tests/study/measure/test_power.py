"""Tests of the seeds that would tell, by simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sn2fpn.study.measure.power import seeds_to_tell, spread_interval


@pytest.mark.parametrize(("difference", "spread"), [(1.0, 0.5), (0.5, 1.0), (2.0, 0.3)])
def test_seeds_to_tell_is_the_power_of_the_paired_test(difference: float, spread: float) -> None:
    n = seeds_to_tell(difference, spread)
    assert n is not None
    rng = np.random.default_rng(0)
    found = [
        np.mean(stats.ttest_1samp(rng.normal(difference, spread, (4000, seeds)), 0, axis=1).pvalue < 0.05)
        for seeds in (n, max(2, n - 1))
    ]
    assert found[0] > 0.78 and (n == 2 or found[1] < 0.82)
    more = seeds_to_tell(difference, spread, 0.01)
    assert more is not None and more > n


def test_seeds_to_tell_at_the_limits() -> None:
    assert seeds_to_tell(1.0, 0.0) == seeds_to_tell(1.0, 1e-12) == seeds_to_tell(1.0, 1e-5) == 2
    assert seeds_to_tell(0.01, 1.0) is None


@pytest.mark.parametrize("spread", [0.3, 0.9, 3.0, 9.0, 11.2, 11.3])
def test_seeds_to_tell_is_the_least_number(spread: float) -> None:
    def power(n: int) -> float:
        return float(stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, n**0.5 / spread))

    found = seeds_to_tell(1.0, spread)
    assert power(found or 1000) >= 0.8 if found else power(1000) < 0.8
    assert found in (None, 2) or power(found - 1) < 0.8


def test_the_interval_of_a_spread_holds_the_true_one() -> None:
    draws = np.random.default_rng(0).normal(0, 2.0, (4000, 5))
    intervals = [spread_interval(float(np.std(row, ddof=1)), 5) for row in draws]
    assert 0.94 < np.mean([low < 2.0 < high for low, high in intervals]) < 0.96
