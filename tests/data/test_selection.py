"""Tests of the choice of records."""

from __future__ import annotations

import pytest

from sn2fpn.data import evenly_spread, images_with_objects


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (5, 1, [0]), (1, 4, [0]), (4, 0, []), (0, 3, [])],
)
def test_positions_are_spread_over_the_whole_length(length: int, count: int, expected: list[int]) -> None:
    assert evenly_spread(range(length), count) == expected


def test_images_without_objects_are_the_last_choice() -> None:
    records = [{"image_id": i, "annotations": [1] * (i % 2)} for i in range(10)]
    assert [r["image_id"] for r in images_with_objects(records, 3)] == [1, 5, 9]
    bare = [{"image_id": i, "annotations": []} for i in range(4)]
    assert [r["image_id"] for r in images_with_objects(bare, 2)] == [0, 3]
