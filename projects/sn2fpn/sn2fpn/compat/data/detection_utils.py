"""Detectron2's `data.detection_utils`: the steps of which a mapper of one's own is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ...data.images import read_image as _read_image
from ...data.masks import MASK_FORMATS, check_segmentation, draw_segmentation, move_polygons
from ...data.transforms import TransformList as _Unmoved
from ...errors import UserError, check_choice
from ...structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, box_of
from ..absent import absent, refuse
from . import transforms as T

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "check_image_size",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]

__getattr__ = absent(__name__, __all__)


class SizeMismatchError(UserError):
    """An image has another size than its data set says."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image file; see `sn2fpn.data.read_image`. Without a format, the channels are in RGB order."""
    return _read_image(file_name, format or "RGB")


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Add the size of an image to its data set dict, or check the one that is there.

    Raises:
        SizeMismatchError: the sizes differ.
    """
    height, width = image.shape[:2]
    annotated = dataset_dict.setdefault("height", height), dataset_dict.setdefault("width", width)
    if annotated != (height, width):
        name = dataset_dict.get("file_name", "the image")
        raise SizeMismatchError(
            f"{name}: the image has the (height, width) {(height, width)}, but its data set says {annotated}"
        )


def build_augmentation(cfg: Any, is_train: bool) -> list[T.Augmentation]:
    """Return the augmentations of `cfg.INPUT`: a change of size and, for training, a flip. Crops are not among them."""
    sizes = cfg.INPUT
    if not is_train:
        return [T.ResizeShortestEdge(sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST, "choice")]
    augmentations: list[T.Augmentation] = [
        T.ResizeShortestEdge(sizes.MIN_SIZE_TRAIN, sizes.MAX_SIZE_TRAIN, sizes.MIN_SIZE_TRAIN_SAMPLING)
    ]
    flip = check_choice("INPUT.RANDOM_FLIP", sizes.RANDOM_FLIP, ("horizontal", "vertical", "none"))
    if flip != "none":
        augmentations.append(T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical"))
    return augmentations


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: None = None,
) -> dict[str, Any]:
    """Transform the box and the mask of an annotation in place.

    Args:
        annotation: one entry of `annotations` of a data set dict.
        transforms: what was applied to the image.
        image_size: the (height, width) of the transformed image.
        keypoint_hflip_indices: must be None, because there are no keypoints.

    Returns:
        The annotation, whose box is in the format XYXY_ABS and clipped to the image. Its polygons are moved, and run
        lengths have become an (H, W) array.

    Raises:
        ArgumentError: the box does not fit its format, or `keypoint_hflip_indices` is given.
        ValueError: the mask is malformed.
    """
    refuse(None, keypoint_hflip_indices=keypoint_hflip_indices)
    moves = transforms if isinstance(transforms, T.Transform) else T.TransformList(transforms)
    height, width = image_size
    box = moves.apply_box(box_of(annotation)[None])[0]
    annotation["bbox"] = box.clip(0, [width, height, width, height])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        mask = check_segmentation({**mask, "size": list(mask["size"])}, *mask["size"])
        annotation["segmentation"] = moves.apply_segmentation(coco_mask.decode(mask))
    elif mask is not None:
        annotation["segmentation"] = move_polygons(mask, moves)  # type: ignore[arg-type]
    return annotation


def annotations_to_instances(
    annos: Sequence[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Return the targets of annotations that are in the pixels of the image already.

    Args:
        annos: annotations, for instance from `transform_instance_annotations`. All are taken, also crowd regions.
        image_size: the (height, width) of the image.
        mask_format: "polygon" or "bitmask". The latter also takes run lengths and (H, W) arrays.

    Returns:
        Instances with `gt_boxes`, `gt_classes` and, if the first annotation has a mask, `gt_masks`.

    Raises:
        ArgumentError: `mask_format` is unknown, or a box does not fit its format.
        ValueError: a mask does not fit the image or `mask_format`.
    """
    check_choice("mask_format", mask_format, MASK_FORMATS)
    boxes = np.array([box_of(a) for a in annos]).reshape(-1, 4)
    classes = torch.tensor([int(a.get("category_id", 0)) for a in annos], dtype=torch.int64)
    instances = Instances(image_size, gt_boxes=Boxes(boxes), gt_classes=classes)
    if annos and "segmentation" in annos[0]:
        masks = [_plain_mask(a["segmentation"]) for a in annos]
        if mask_format == "polygon":
            instances.gt_masks = PolygonMasks([move_polygons(m, _Unmoved()) for m in masks])
        else:
            instances.gt_masks = BitMasks(np.stack([draw_segmentation(m, _Unmoved(), image_size) for m in masks]))
    return instances


def _plain_mask(mask: Any) -> Any:
    """Return a mask as polygons or run lengths."""
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return mask


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Any:
    """Return the targets whose boxes and masks are not empty.

    Args:
        instances: the targets, with `gt_boxes` and perhaps `gt_masks`.
        by_box: leave out boxes with a side of at most `box_threshold` pixels.
        by_mask: leave out empty masks, if there are masks.
        box_threshold: see `by_box`.
        return_mask: also return which were kept (Tensor[N], bool).
    """
    kept = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        kept &= instances.gt_boxes.nonempty(box_threshold)
    if by_mask and instances.has("gt_masks"):
        kept &= instances.gt_masks.nonempty()
    return (instances[kept], kept) if return_mask else instances[kept]
