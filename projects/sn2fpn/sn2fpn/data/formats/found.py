"""What readers have found in annotation files, and its conversion to data set dicts, which all formats share."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_api

from ...errors import UserError, counted, did_you_mean
from ...structures import BoxMode
from ..images import read_image_size
from ..masks import BORDER_TOLERANCE_PX, MAX_PIXELS, check_and_clip
from ..plausible import find_doubts
from ..problems import Problems, Unusable, log_once
from ..records import DatasetDicts
from .source import Source

__all__ = [
    "Change",
    "Found",
    "FoundObject",
    "add_objects",
    "check_mask",
    "check_size",
    "clip_box",
    "finish",
    "join_groups",
    "names_in_use",
    "tight_box",
]

logger = logging.getLogger(__name__)

Change = tuple[str, str]  # what is changed, and its kind for the summary


class FoundObject(NamedTuple):
    """An object as an annotation file describes it.

    Args:
        category: the name of its class, or the number of its class.
        box: (x1, y1, x2, y2) in pixels, or None for the tight box around the mask.
        segmentation: polygons or run lengths as in COCO's files, or None.
        flags: `iscrowd` and `difficult`, where the format has them.
        group: objects of an image with the same group and class are parts of one object; None is no group.
    """

    category: str | int
    box: Sequence[float] | None
    segmentation: Any = None
    flags: Mapping[str, int] = {}
    group: str | None = None


Found = tuple[str, FoundObject | Unusable]
"""A label that names an object in messages, and the object or the reason why it is left out."""


def check_size(height: int, width: int, file_name: str) -> tuple[int, int]:
    """Return the (height, width) of an image, which are read from its file if they are not positive.

    Raises:
        ValueError: the image is too large.
        UserError: the image cannot be read.
    """
    if height < 1 or width < 1:
        height, width = read_image_size(file_name)
    if height * width > MAX_PIXELS:
        raise ValueError(f"size is {width}x{height} pixels, expected at most {MAX_PIXELS}")
    return height, width


def add_objects(
    record: dict[str, Any], found: Iterable[Found], class_ids: Mapping[str, int], file: Path, problems: Problems
) -> None:
    """Set the annotations of a data set dict.

    Args:
        record: has the `height` and `width` of the image.
        found: what its annotation file describes.
        class_ids: contiguous ids by class name.
        file: the annotation file, for messages.
        problems: receives the objects that are left out or changed.
    """
    record["annotations"] = []
    for label, item in found:
        problems.objects += 1
        try:
            annotation, changes = _convert(item, class_ids, record["height"], record["width"])
        except Unusable as e:
            problems.leave_out(file, label, e)
            continue
        for what, kind in changes:
            problems.change(file, f"{label}: {what}", kind)
        record["annotations"].append(annotation)


def finish(records: DatasetDicts, problems: Problems, source: Source, classes: Sequence[str]) -> None:
    """Report doubts about a whole data set, and log its size.

    Raises:
        UserError: there are objects and none is usable.
    """
    for doubt in find_doubts(records):
        problems.remark(source.annotations, doubt)
    kept = sum(len(record.get("annotations", ())) for record in records)
    part = f", split {source.split!r}" if source.split is not None else ""
    if problems.objects and not kept:
        shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
        raise UserError(
            f"{source.annotations}{part}: none of its {counted(problems.objects, 'object')} is usable with the classes "
            f"{shown}; check that these are the classes of this data set"
        )
    sizes = counted(len(records), "image"), counted(kept, "object"), counted(len(classes), "class", "classes")
    log_once(logger, f"{source.annotations}{part}: {', '.join(sizes)}")


def names_in_use(found: Iterable[Found]) -> set[str]:
    """Return the class names of objects."""
    return {item.category for _, item in found if isinstance(item, FoundObject) and isinstance(item.category, str)}


def join_groups(found: Iterable[Found]) -> list[Found]:
    """Return objects where polygons of the same group and class are the parts of one object."""
    joined: list[Found] = []
    places: dict[tuple[str, str | int], int] = {}
    for label, item in found:
        if isinstance(item, Unusable) or item.group is None or not isinstance(item.segmentation, list):
            joined.append((label, item))
            continue
        place = places.setdefault((item.group, item.category), len(joined))
        if place == len(joined):
            joined.append((label, item))
        else:
            first_label, first = joined[place]
            assert isinstance(first, FoundObject)
            parts = [*first.segmentation, *item.segmentation]
            joined[place] = first_label, first._replace(segmentation=parts, box=None)
    return joined


def _convert(
    item: FoundObject | Unusable, class_ids: Mapping[str, int], height: int, width: int
) -> tuple[dict[str, Any], list[Change]]:
    """Return an annotation of a data set dict, and what was changed in it. An Unusable says why there is none."""
    if isinstance(item, Unusable):
        raise item
    category_id = _class_id(item.category, class_ids)
    segmentation, changes = check_mask(item.segmentation, height, width)
    if item.box is None and segmentation is None:
        raise Unusable("without a valid mask", changes[0][0].partition(";")[0] if changes else "it has no box")
    box = tuple(item.box) if item.box is not None else _corners(tight_box(segmentation))
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)) or x2 <= x1 or y2 <= y1:
        raise Unusable("without area", f"box {list(box)} (x1, y1, x2, y2) has no area")
    clipped = clip_box(box, height, width)
    if clipped != box:
        beyond = f"box {list(box)} reaches beyond the {width}x{height} image and is clipped to {list(clipped)}"
        changes.insert(0, (beyond, "with a clipped box"))
    annotation = {"category_id": category_id, "bbox": [float(v) for v in clipped], "bbox_mode": BoxMode.XYXY_ABS}
    if segmentation is not None:
        annotation["segmentation"] = segmentation
    return {**annotation, **item.flags}, changes


def _class_id(category: str | int, class_ids: Mapping[str, int]) -> int:
    if isinstance(category, int):
        if not 0 <= category < len(class_ids):
            expected = f"expected 0 to {len(class_ids) - 1}"
            raise Unusable("of an unknown class", f"unknown class {category}, {expected}")
        return category
    if category not in class_ids:
        unknown = f"unknown class {category or None!r}{did_you_mean(category, class_ids)}"
        raise Unusable("of an unknown class", unknown)
    return class_ids[category]


def clip_box(box_xyxy: tuple[float, ...], height: int, width: int) -> tuple[float, ...]:
    """Clip a box to its image, unless it only reaches beyond the image by a rounding error.

    Raises:
        Unusable: no part of the box lies in the image.
    """
    x1, y1, x2, y2 = box_xyxy
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        where = f"lies outside the {width}x{height} image"
        raise Unusable("outside of the image", f"box {list(box_xyxy)} (x1, y1, x2, y2) {where}")
    t = BORDER_TOLERANCE_PX
    if x1 >= -t and y1 >= -t and x2 <= width + t and y2 <= height + t:
        return box_xyxy
    return max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)


def check_mask(segmentation: Any, height: int, width: int) -> tuple[Any, list[Change]]:
    """Return the checked segmentation, which is None if there is no valid one, and what was changed in it."""
    if not segmentation:
        return None, []
    try:
        checked, clipped = check_and_clip(segmentation, height, width)
    except ValueError as e:
        return None, [(f"{e}; the box is kept without its mask", "without their malformed mask")]
    beyond = f"a polygon reaches beyond the {width}x{height} image and is clipped"
    return checked, [(beyond, "with a clipped mask")] if clipped else []


def tight_box(segmentation: Sequence[Sequence[float]] | dict[str, Any]) -> list[float]:
    """Return the tight box [x, y, width, height] around polygons or run lengths."""
    if isinstance(segmentation, dict):
        return mask_api.toBbox(segmentation).tolist()
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height
