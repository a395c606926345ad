"""From a data set dict to a model input: decode, augment, and turn annotations into Instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..structures import Boxes, BoxMode, Instances
from .augmentation import TransformList, build_augmentations, plan_transforms
from .images import check_image_size, read_image

__all__ = ["DatasetMapper", "annotations_to_instances", "build_mapper"]


class DatasetMapper:
    """Maps a data set dict to Detectron2's model input.

    Args:
        augmentations: objects with `plan(size, rng)`, applied in order.
        image_format: channel order of the image, see `read_image`.
        with_targets: add `instances`; crowd regions and boxes that became empty are left out.
    """

    def __init__(self, augmentations: Sequence[Any], image_format: str = "BGR", with_targets: bool = True) -> None:
        self.augmentations = list(augmentations)
        self.image_format = image_format
        self.with_targets = with_targets

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Returns: `image` (uint8 Tensor[C, H, W]), `height`, `width` (of the file), `file_name`,
        `image_id` and, with targets, `instances` (`gt_boxes`, `gt_classes`) at the image's size.

        Raises:
            UserError: the file cannot be decoded, or its size is not the annotated one.
        """
        image = read_image(record["file_name"], self.image_format)
        check_image_size(record, image)
        transforms = plan_transforms(self.augmentations, image.shape[:2], rng)
        image = transforms.apply_image(image)
        out = {key: value for key, value in record.items() if key != "annotations"}
        out["image"] = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        if self.with_targets:
            out["instances"] = annotations_to_instances(record["annotations"], transforms, image.shape[:2])
        return out


def annotations_to_instances(
    annotations: list[dict[str, Any]], transforms: TransformList, image_size: tuple[int, int],
) -> Instances:
    """Training targets: boxes moved by `transforms` and clipped to (height, width), with their classes."""
    objects = [a for a in annotations if not a.get("iscrowd", 0)]
    boxes = np.array([BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]).reshape(-1, 4)
    h, w = image_size
    gt_boxes = Boxes(transforms.apply_boxes(boxes).clip(0, [w, h, w, h]))
    gt_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    instances = Instances((int(h), int(w)), gt_boxes=gt_boxes, gt_classes=gt_classes)
    return instances[gt_boxes.nonempty(1e-5)]  # Detectron2's limit, in pixels


def build_mapper(cfg: Any, is_train: bool, with_targets: bool | None = None) -> DatasetMapper:
    """The mapper of a configuration; `with_targets` defaults to `is_train`."""
    return DatasetMapper(build_augmentations(cfg, is_train), cfg.INPUT.FORMAT,
                         is_train if with_targets is None else with_targets)
