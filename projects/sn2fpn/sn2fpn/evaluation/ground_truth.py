"""The conversion of a data set's objects to COCO's annotation format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..data.masks import check_segmentation
from ..errors import UserError
from ..structures import BoxMode, box_of

__all__ = ["coco_ground_truth"]


def coco_ground_truth(
    dataset_dicts: Sequence[dict[str, Any]], category_ids: Sequence[int], class_names: Sequence[str]
) -> dict[str, Any]:
    """Convert data set dicts to a dict with `images`, `categories` and `annotations`.

    The data set dicts come from the same reader as for training, so that broken objects that it skips do not count
    here either. The area of an object, which decides whether it is small, medium or large, is the annotated `area` (for
    COCO that of the mask), or else the area of the segmentation, or else the area of the box. VOC's difficult objects
    count like other objects, because COCO's metric has no difficult objects; Detectron2 does the same.

    Args:
        dataset_dicts: the images with their annotations.
        category_ids: the category ids in the order of the contiguous class ids.
        class_names: the class names in the order of the contiguous class ids.

    Raises:
        UserError: a mask is malformed, which can only be in a data set that no reader of this project has read.
    """
    images, annotations = [], []
    for record in dataset_dicts:
        images.append(
            {
                "id": record["image_id"],
                "height": record["height"],
                "width": record["width"],
                "file_name": record["file_name"],
            }
        )
        for annotation in record.get("annotations", ()):
            found = {**annotation, "segmentation": _segmentation(annotation, record)}
            annotations.append(
                {
                    # Ids start at 1, because pycocotools uses the id 0 for "no match".
                    "id": len(annotations) + 1,
                    "image_id": record["image_id"],
                    "category_id": category_ids[found["category_id"]],
                    "bbox": _box(found, record),
                    "area": object_area(found),
                    "iscrowd": int(found.get("iscrowd", 0)),
                    "segmentation": found["segmentation"],
                }
            )
    categories = [{"id": i, "name": n} for i, n in zip(category_ids, class_names, strict=True)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _box(annotation: dict[str, Any], record: dict[str, Any]) -> list[float]:
    """Return the box (x, y, w, h) of an object."""
    try:
        return box_of(annotation, BoxMode.XYWH_ABS).tolist()
    except ValueError as e:
        raise UserError(f"{record['file_name']}: {e}") from None


def _segmentation(annotation: dict[str, Any], record: dict[str, Any]) -> Any:
    """Return the mask of an object, which is checked because a wrong one can crash pycocotools."""
    if not annotation.get("segmentation"):
        return []
    try:
        return check_segmentation(annotation["segmentation"], record["height"], record["width"])
    except ValueError as e:
        raise UserError(f"{record['file_name']}: {e}") from None


def object_area(annotation: dict[str, Any]) -> float:
    """Return the area of an object in square pixels."""
    if "area" in annotation:
        return float(annotation["area"])
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):  # uncompressed run lengths of 0s and 1s in turn
            return float(sum(segmentation["counts"][1::2]))
        return float(coco_mask.area(segmentation))
    if segmentation:
        return sum(_polygon_area(polygon) for polygon in segmentation)
    return float(box_of(annotation, BoxMode.XYWH_ABS)[2:].prod())


def _polygon_area(polygon: Sequence[float]) -> float:
    """Compute the area of a polygon x1, y1, x2, y2, … by the shoelace formula."""
    x, y = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
    return float(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
