"""The mapper that turns a data set dict into a model input: it reads, augments and converts the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import UserError, argument_names, check_choice
from ..structures import BitMasks, Boxes, Instances, PolygonMasks, box_of
from .augmentation import build_augmentations, plan_transforms
from .images import FORMATS, as_array, as_planes, check_image_size, decode_image
from .masks import MASK_FORMATS, check_segmentation, draw_segmentation, move_polygons
from .selection import mask_format_of
from .transforms import ON_PIL, TransformList

__all__ = ["DatasetMapper", "annotations_to_instances", "build_mapper"]


class DatasetMapper:
    """A callable that maps a data set dict to a model input in Detectron2's format.

    Args:
        augmentations: objects with a method `plan(size, rng)`, applied in order.
        image_format: channel order of the image, see `read_image`.
        with_targets: add `instances` to the input, without crowd regions and without boxes that became empty.
        mask_format: "polygon" or "bitmask" adds `gt_masks` to the targets and leaves out objects without a mask,
            including those whose mask was cropped away; None leaves masks out.
        boxes_from_masks: compute the boxes from the transformed masks, because the transformed box of a cropped object
            may be larger than the visible part.

    Raises:
        ArgumentError: `image_format` or `mask_format` is unknown.
    """

    def __init__(
        self,
        augmentations: Sequence[Any],
        image_format: str = "BGR",
        with_targets: bool = True,
        mask_format: str | None = None,
        boxes_from_masks: bool = False,
    ) -> None:
        self.augmentations = list(augmentations)
        self.image_format = check_choice("image_format", image_format, FORMATS)
        self.with_targets = with_targets
        self.mask_format = None if mask_format is None else check_choice("mask_format", mask_format, MASK_FORMATS)
        self.boxes_from_masks = boxes_from_masks

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Read and augment the image of a data set dict.

        Returns:
            A dict with `image` (uint8 Tensor[C, H, W]), `height` and `width` (of the file), `file_name`, `image_id`
            and, if targets are wanted, `instances` with `gt_boxes`, `gt_classes` and `gt_masks` in pixels of `image`.

        Raises:
            UserError: the file cannot be decoded, its size differs from the annotated one, a box does not fit its
                format, or a mask does not fit the image or `mask_format`.
        """
        decoded = decode_image(record["file_name"], self.image_format)
        check_image_size(record, decoded)
        source_size = decoded.height, decoded.width
        transforms = plan_transforms(self.augmentations, source_size, rng)
        image = self._transformed(decoded, transforms)
        out = {key: value for key, value in record.items() if key != "annotations"}
        out["image"] = torch.from_numpy(image)
        if self.with_targets:
            out["instances"] = self._targets(record, transforms, source_size, image.shape[1:])
        return out

    def _transformed(self, image: Image.Image, transforms: TransformList) -> np.ndarray:
        """Return the transformed image (C, H, W)."""
        if all(type(t) in ON_PIL for t in transforms):  # an array on the way takes a fifth of the mapper's time
            for t in transforms:
                image = t.apply_pil(image)
            return as_planes(image, self.image_format)
        pixels = transforms.apply_image(as_array(image, self.image_format))
        return np.array(pixels.transpose(2, 0, 1), order="C")

    def _targets(
        self,
        record: dict[str, Any],
        transforms: TransformList,
        source_size: tuple[int, int],
        image_size: tuple[int, int],
    ) -> Instances:
        annotations = record["annotations"]
        try:
            if self.mask_format is None:
                return annotations_to_instances(annotations, transforms, image_size)
            checked = [a if a.get("iscrowd", 0) else _with_checked_mask(a, source_size) for a in annotations]
            instances = annotations_to_instances(
                checked, transforms, image_size, self.mask_format, self.boxes_from_masks
            )
        except ValueError as e:
            raise UserError(f"{record['file_name']}: {e}") from None
        return instances[instances.gt_masks.nonempty()]


def _with_checked_mask(annotation: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return the annotation with a valid mask. Our readers check masks, but a user's own data set may not."""
    if not annotation.get("segmentation"):
        return annotation
    return {**annotation, "segmentation": check_segmentation(annotation["segmentation"], *size)}


def annotations_to_instances(
    annotations: list[dict[str, Any]],
    transforms: TransformList,
    image_size: tuple[int, int],
    mask_format: str | None = None,
    boxes_from_masks: bool = False,
) -> Instances:
    """Convert annotations to training targets.

    Args:
        annotations: the annotations of a data set dict; crowd regions are left out.
        transforms: the transforms to apply to boxes and masks.
        image_size: the (height, width) to clip boxes to.
        mask_format: "polygon" or "bitmask" adds `gt_masks`, which are empty for objects without a mask; None leaves
            masks out.
        boxes_from_masks: compute the boxes from the transformed masks instead of transforming the boxes.

    Returns:
        Instances with `gt_boxes`, `gt_classes` and perhaps `gt_masks`, without empty boxes.

    Raises:
        ValueError: a mask does not fit the image or `mask_format`, or a box does not fit its format.
    """
    numbered = [(i, a) for i, a in enumerate(annotations) if not a.get("iscrowd", 0)]
    objects = [a for _, a in numbered]
    boxes = np.array([_box(i, a) for i, a in numbered]).reshape(-1, 4)
    h, w = image_size
    gt_boxes = Boxes(transforms.apply_boxes(boxes).clip(0, [w, h, w, h]))
    gt_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    instances = Instances((int(h), int(w)), gt_boxes=gt_boxes, gt_classes=gt_classes)
    if mask_format is not None:
        instances.gt_masks = _masks([a.get("segmentation") for a in objects], transforms, (h, w), mask_format)
        if boxes_from_masks:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return instances[instances.gt_boxes.nonempty(1e-5)]  # Detectron2's threshold, in pixels


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


def build_mapper(cfg: Any, is_train: bool, with_targets: bool | None = None) -> DatasetMapper:
    """Build the mapper of a configuration; `with_targets` defaults to `is_train`.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    augmentations = build_augmentations(cfg, is_train)
    with argument_names({"image_format": "INPUT.FORMAT", "mask_format": "INPUT.MASK_FORMAT"}):
        return DatasetMapper(
            augmentations,
            cfg.INPUT.FORMAT,
            is_train if with_targets is None else with_targets,
            mask_format_of(cfg),
            boxes_from_masks=cfg.MODEL.MASK_ON and cfg.INPUT.CROP.ENABLED,
        )
