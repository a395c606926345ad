"""Training targets: the annotations of an image after its transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import argument_names
from ..structures import BitMasks, Boxes, Instances, PolygonMasks, box_of
from .masks import check_segmentation, draw_segmentation, has_mask, move_polygons
from .transforms import TransformList

__all__ = ["SHARE_TOLERANCE", "annotations_to_instances", "with_checked_mask"]

SHARE_TOLERANCE = 1e-6
"""What an object may lack of the share that it must keep, because transforms move borders by rounding errors."""


def with_checked_mask(annotation: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return the annotation with a valid mask. Our readers check masks, but a user's own data set may not."""
    if not has_mask(annotation):
        return annotation
    return {**annotation, "segmentation": check_segmentation(annotation["segmentation"], *size)}


def annotations_to_instances(
    annotations: list[dict[str, Any]],
    transforms: TransformList,
    image_size: tuple[int, int],
    mask_format: str | None = None,
    boxes_from_masks: bool = False,
    window: Sequence[float] | None = None,
    min_visible: float = 0.0,
) -> Instances:
    """Convert annotations to training targets.

    Args:
        annotations: the annotations of a data set dict; crowd regions are left out.
        transforms: the transforms to apply to boxes and masks.
        image_size: the (height, width) to clip boxes to.
        mask_format: "polygon" or "bitmask" adds `gt_masks`, which are empty for objects without a mask; None leaves
            masks out.
        boxes_from_masks: compute the boxes from the transformed masks instead of transforming the boxes.
        window: (x1, y1, x2, y2) of the part of the image to clip boxes to; None stands for the whole image.
        min_visible: the share of its box that an object must keep after clipping.

    Returns:
        Instances with `gt_boxes`, `gt_classes` and perhaps `gt_masks`, without empty boxes.

    Raises:
        ValueError: a mask does not fit the image or `mask_format`, or a box does not fit its format.
    """
    numbered = [(i, a) for i, a in enumerate(annotations) if not a.get("iscrowd", 0)]
    objects = [a for _, a in numbered]
    boxes = np.array([_box(i, a) for i, a in numbered]).reshape(-1, 4)
    h, w = image_size
    boxes = transforms.apply_boxes(boxes)
    clipped = boxes.clip(0, [w, h, w, h])
    if window is not None:
        x1, y1, x2, y2 = window
        clipped = clipped.clip([x1, y1, x1, y1], [x2, y2, x2, y2])
    gt_boxes = Boxes(clipped)
    gt_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    instances = Instances((int(h), int(w)), gt_boxes=gt_boxes, gt_classes=gt_classes)
    if mask_format is not None:
        instances.gt_masks = _masks([a.get("segmentation") for a in objects], transforms, (h, w), mask_format)
        if boxes_from_masks:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    visible = torch.from_numpy(_areas(clipped) >= (min_visible - SHARE_TOLERANCE) * _areas(boxes))
    return instances[instances.gt_boxes.nonempty(1e-5) & visible]  # Detectron2's threshold, in pixels


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _box(index: int, annotation: dict[str, Any]) -> np.ndarray:
    with argument_names(lambda argument: f"annotations[{index}].{argument}"):
        return box_of(annotation)


def _masks(
    segmentations: list[Any], transforms: TransformList, image_size: tuple[int, int], mask_format: str
) -> PolygonMasks | BitMasks:
    if mask_format == "polygon":
        return PolygonMasks([move_polygons(s, transforms) for s in segmentations])
    drawn = [draw_segmentation(s, transforms, image_size) for s in segmentations]
    return BitMasks(np.stack(drawn) if drawn else np.empty((0, *image_size), dtype=bool))
