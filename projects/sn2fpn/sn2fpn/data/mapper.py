"""From a data set dict to a model input: decode, augment, and turn annotations into Instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import UserError, did_you_mean
from ..structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from .augmentation import TransformList, build_augmentations, plan_transforms
from .images import check_format, check_image_size, read_image
from .masks import MASK_FORMATS, check_segmentation, draw_segmentation, move_polygons

__all__ = ["DatasetMapper", "annotations_to_instances", "build_mapper"]


class DatasetMapper:
    """Maps a data set dict to Detectron2's model input.

    Args:
        augmentations: objects with `plan(size, rng)`, applied in order.
        image_format: channel order of the image, see `read_image`.
        with_targets: add `instances`; crowd regions and boxes that became empty are left out.
        mask_format: "polygon" or "bitmask": targets have `gt_masks`, and objects without a mask (or whose mask
            a crop cut away) are left out; None: boxes only.
        boxes_from_masks: tight boxes of the moved masks; a cropped object's own box may be loose.

    Raises:
        UserError: unknown `image_format` or `mask_format`.
    """

    def __init__(
        self,
        augmentations: Sequence[Any],
        image_format: str = "BGR",
        with_targets: bool = True,
        mask_format: str | None = None,
        boxes_from_masks: bool = False,
    ) -> None:
        check_format(image_format)
        if mask_format is not None and mask_format not in MASK_FORMATS:
            hint = did_you_mean(mask_format, MASK_FORMATS)
            raise UserError(f"INPUT.MASK_FORMAT: unknown value {mask_format!r}{hint}")
        self.augmentations = list(augmentations)
        self.image_format = image_format
        self.with_targets = with_targets
        self.mask_format = mask_format
        self.boxes_from_masks = boxes_from_masks

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Returns: `image` (uint8 Tensor[C, H, W]), `height`, `width` (of the file), `file_name`,
        `image_id` and, with targets, `instances` (`gt_boxes`, `gt_classes`, `gt_masks`) at the image's size.

        Raises:
            UserError: the file cannot be decoded, its size is not the annotated one, or a mask does not suit
                the image or the mask format.
        """
        image = read_image(record["file_name"], self.image_format)
        check_image_size(record, image)
        source_size = image.shape[:2]
        transforms = plan_transforms(self.augmentations, image.shape[:2], rng)
        image = transforms.apply_image(image)
        out = {key: value for key, value in record.items() if key != "annotations"}
        out["image"] = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        if self.with_targets:
            out["instances"] = self._targets(record, transforms, source_size, image.shape[:2])
        return out

    def _targets(
        self,
        record: dict[str, Any],
        transforms: TransformList,
        source_size: tuple[int, int],
        image_size: tuple[int, int],
    ) -> Instances:
        annotations = record["annotations"]
        if self.mask_format is None:
            return annotations_to_instances(annotations, transforms, image_size)
        try:  # readers have checked their masks; a data set of the user's own function comes unchecked
            annotations = [
                {**a, "segmentation": check_segmentation(a["segmentation"], *source_size)}
                if a.get("segmentation")
                else a
                for a in annotations
                if not a.get("iscrowd", 0)
            ]
            instances = annotations_to_instances(
                annotations, transforms, image_size, self.mask_format, self.boxes_from_masks
            )
        except ValueError as e:
            raise UserError(f"{record['file_name']}: {e}") from None
        return instances[instances.gt_masks.nonempty()]


def annotations_to_instances(
    annotations: list[dict[str, Any]],
    transforms: TransformList,
    image_size: tuple[int, int],
    mask_format: str | None = None,
    boxes_from_masks: bool = False,
) -> Instances:
    """Training targets: boxes moved by `transforms` and clipped to (height, width), with classes and masks.

    Args:
        annotations: of a data set dict; crowd regions are left out.
        mask_format: "polygon" or "bitmask" for `gt_masks`, empty for objects without; None: no masks.
        boxes_from_masks: tight boxes of the moved masks instead of the moved boxes.

    Raises:
        ValueError: a mask that does not suit the image or the format; the message says why.
    """
    objects = [a for a in annotations if not a.get("iscrowd", 0)]
    boxes = np.array([BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]).reshape(-1, 4)
    h, w = image_size
    gt_boxes = Boxes(transforms.apply_boxes(boxes).clip(0, [w, h, w, h]))
    gt_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    instances = Instances((int(h), int(w)), gt_boxes=gt_boxes, gt_classes=gt_classes)
    if mask_format is not None:
        instances.gt_masks = _masks([a.get("segmentation") for a in objects], transforms, (h, w), mask_format)
        if boxes_from_masks:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return instances[instances.gt_boxes.nonempty(1e-5)]  # Detectron2's limit, in pixels


def _masks(
    segmentations: list[Any], transforms: TransformList, image_size: tuple[int, int], mask_format: str
) -> PolygonMasks | BitMasks:
    if mask_format == "polygon":
        return PolygonMasks([move_polygons(s, transforms) for s in segmentations])
    drawn = [draw_segmentation(s, transforms, image_size) for s in segmentations]
    return BitMasks(np.stack(drawn) if drawn else np.empty((0, *image_size), dtype=bool))


def build_mapper(cfg: Any, is_train: bool, with_targets: bool | None = None) -> DatasetMapper:
    """The mapper of a configuration; `with_targets` defaults to `is_train`."""
    masks = cfg.MODEL.MASK_ON
    return DatasetMapper(
        build_augmentations(cfg, is_train),
        cfg.INPUT.FORMAT,
        is_train if with_targets is None else with_targets,
        cfg.INPUT.MASK_FORMAT if masks else None,
        boxes_from_masks=masks and cfg.INPUT.CROP.ENABLED,
    )
