"""Remarks on data sets whose items are valid, but which hardly mean what they say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import counted_of
from ..structures import box_of
from .records import DatasetDicts, Records

__all__ = ["find_doubts", "find_notes"]

_SHOWN = 10  # number of class names in a line


def find_doubts(records: DatasetDicts | Records) -> Iterator[str]:
    """Yield one line for each reason why a model cannot learn from a data set, although its objects are valid."""
    objects = [a for record in records for a in record.get("annotations", ())]
    if not objects:
        return
    if all(a.get("iscrowd", 0) for a in objects):
        yield (
            f"{_all(objects, 'object is a crowd region', 'objects are crowd regions')} (iscrowd is 1), which no model "
            "is trained on; set iscrowd to 0 for single objects"
        )
    if all(corners.max() <= 1 for corners in _boxes(objects)) and any(max(_size(r)) > 1 for r in records):
        yield (
            f"the coordinates of {_all(objects, 'box', 'boxes')} are at most 1, so that they look like fractions of "
            "the image; boxes are expected in pixels"
        )
    elif all((b[2:] - b[:2]).min() < 1 for b in _boxes(objects)) and any(min(_size(r)) > 1 for r in records):
        all_ = _all(objects, "box is", "boxes are")
        yield f"{all_} less than a pixel wide or high; check the unit of the boxes"


def _all(objects: Sequence[Any], one: str, several: str) -> str:
    return "the only " + one if len(objects) == 1 else f"all {len(objects)} {several}"


def _boxes(objects: Iterable[dict[str, Any]]) -> Iterator[np.ndarray]:
    """Yield the boxes (x1, y1, x2, y2) one by one, because in most data sets the first box answers the question."""
    return (box_of(a) for a in objects)


def _size(record: dict[str, Any]) -> tuple[int, int]:
    return record["height"], record["width"]


def find_notes(records: DatasetDicts, class_names: Sequence[str], detections_per_image: int) -> Iterator[str]:
    """Yield one line for each property of a data set that may be intended, but is often a mistake.

    Args:
        records: the images.
        class_names: the class names by contiguous id.
        detections_per_image: the largest number of objects that a detector finds in an image; -1 means no limit.
    """
    counts = [len(record["annotations"]) for record in records if "annotations" in record]
    there = {a["category_id"] for record in records for a in record.get("annotations", ())}
    absent = [name for i, name in enumerate(class_names) if i not in there]
    if there and absent:
        shown = ", ".join(map(repr, absent[:_SHOWN])) + (", …" if len(absent) > _SHOWN else "")
        yield (
            f"{counted_of(len(absent), len(class_names), 'class/classes', 'has/have')} no object: {shown}; to drop a "
            "class, remove it from the classes of the annotations or from CLASSES in all sets, and lower "
            "MODEL.ROI_HEADS.NUM_CLASSES"
        )
    empty = counts.count(0)
    if 2 * empty > len(counts):
        yield (
            f"{counted_of(empty, len(counts), 'image', 'has/have')} no object; training leaves such images out unless "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS is False"
        )
    crowded = sum(count > detections_per_image for count in counts)
    if crowded and detections_per_image >= 0:
        yield (
            f"{counted_of(crowded, len(counts), 'image', 'has/have')} more than {detections_per_image} objects, the "
            f"most {max(counts)}; a detector finds at most TEST.DETECTIONS_PER_IMAGE objects in an image"
        )
