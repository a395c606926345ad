"""Tests of the choice of records."""

from __future__ import annotations

import pytest

from sn2fpn.data import evenly_spread


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (5, 1, [0]), (1, 4, [0]), (4, 0, []), (0, 3, [])],
)
def test_positions_are_spread_over_the_whole_length(length: int, count: int, expected: list[int]) -> None:
    assert evenly_spread(range(length), count) == expected
