"""The conversion of single objects of COCO files to the annotations of data set dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...structures import BoxMode
from ..problems import Unusable
from ..values import is_number, read_flag, read_whole
from .found import Change, check_mask, clip_box, tight_box

__all__ = ["convert_annotation"]


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
    segmentation, changes = check_mask(annotation.get("segmentation"), height, width)
    bbox = annotation.get("bbox")
    if segmentation and (bbox is None or bbox == []):
        bbox = tight_box(segmentation)
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
    if annotation.get("ignore") in (1, "1"):  # in files that were made of VOC's
        out["difficult"] = 1
    return out, changes


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
