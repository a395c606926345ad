"""Tests of the choice of images: evenly spread, and those with objects first."""

from __future__ import annotations

from sn2fpn.study.images import images_with_objects


def test_images_without_objects_are_the_last_choice() -> None:
    records = [{"image_id": i, "annotations": [1] * (i % 2)} for i in range(10)]
    assert [r["image_id"] for r in images_with_objects(records, 3)] == [1, 5, 9]
    bare = [{"image_id": i, "annotations": []} for i in range(4)]
    assert [r["image_id"] for r in images_with_objects(bare, 2)] == [0, 3]
