"""The conversion of single objects of COCO files to the annotations of data set dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from ..structures import BoxMode
from .masks import BORDER_TOLERANCE_PX, check_and_clip
from .problems import Unusable
from .values import is_number, read_flag, read_whole

__all__ = ["clip_box", "convert_annotation"]

Change = tuple[str, str]  # what is changed, and its kind for the summary


def convert_annotation(
    annotation: Mapping[str, Any], id_map: Mapping[int, int], height: int, width: int
) -> tuple[dict[str, Any], list[Change]]:
    """Convert an annotation of a COCO file.

    Args:
        annotation: the annotation.
        id_map: the contiguous class ids by category id.
        height: height of the image.
        width: width of the image.

    Returns:
        The annotation of a data set dict, and what was changed in it.

    Raises:
        Unusable: the object has to be left out.
    """
    category_id = read_whole(annotation.get("category_id"))
    if category_id not in id_map:
        raise Unusable("of an unknown category", f"category {annotation.get('category_id')!r} is not in 'categories'")
    try:
        crowd = read_flag(annotation.get("iscrowd"), "iscrowd")
    except ValueError as e:
        raise Unusable("with an unclear iscrowd", str(e)) from None
    segmentation, changes = _segmentation(annotation.get("segmentation"), height, width)
    bbox = annotation.get("bbox")
    if segmentation and (bbox is None or bbox == []):
        bbox = _tight_box(segmentation)
    bbox = _check_box(bbox)
    clipped = _clip_xywh(bbox, height, width)
    if clipped != bbox:
        beyond = f"bbox {bbox} reaches beyond the {width}x{height} image and is clipped to {clipped}"
        changes.insert(0, (beyond, "with a clipped box"))
    out = {"iscrowd": int(crowd), "bbox": clipped, "bbox_mode": BoxMode.XYWH_ABS, "category_id": id_map[category_id]}
    if is_number(annotation.get("area")):
        out["area"] = annotation["area"]
    if segmentation:
        out["segmentation"] = segmentation
    return out, changes


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


def _check_box(bbox: Any) -> list[float]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        reason = f"bbox {str(bbox)[:200]} is not [x, y, width, height] of four finite numbers"
        raise Unusable("without a valid box", reason)
    if bbox[2] <= 0 or bbox[3] <= 0:
        raise Unusable("without area", f"bbox {bbox} has no area: width {bbox[2]}, height {bbox[3]}")
    return bbox


def _clip_xywh(bbox: list[float], height: int, width: int) -> list[float]:
    corners = (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])
    x1, y1, x2, y2 = clip_box(corners, height, width)
    return bbox if (x1, y1, x2, y2) == corners else [x1, y1, x2 - x1, y2 - y1]


def _segmentation(segmentation: Any, height: int, width: int) -> tuple[Any, list[Change]]:
    """Return the checked segmentation, which is None if there is no valid one, and what was changed in it."""
    if not segmentation:
        return None, []
    try:
        checked, clipped = check_and_clip(segmentation, height, width)
    except ValueError as e:
        return None, [(f"{e}; the box is kept without its mask", "without their malformed mask")]
    beyond = f"a polygon reaches beyond the {width}x{height} image and is clipped"
    return checked, [(beyond, "with a clipped mask")] if clipped else []


def _tight_box(segmentation: Sequence[Sequence[float]] | dict[str, Any]) -> list[float]:
    """Return the tight box [x, y, width, height] around polygons or run lengths."""
    if isinstance(segmentation, dict):
        return mask_api.toBbox(segmentation).tolist()
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]
