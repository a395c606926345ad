"""Detectron2's `data.DatasetMapper`, and mappers of one's own in the loaders of this package."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ...config import CfgNode
from ...data.seeding import seeded
from ...data.targets import annotations_to_instances, with_checked_mask
from ...errors import UserError
from ..absent import absent, refuse
from ..config import configurable
from . import detection_utils as utils
from . import transforms as T

__all__ = ["DatasetMapper", "PerImageSeed"]

__getattr__ = absent(__name__, __all__)


class DatasetMapper:
    """A callable that maps a data set dict to a model input, with Detectron2's arguments.

    It is called with a configuration, as `DatasetMapper(cfg, is_train=True, augmentations=[…])`, or with its arguments.

    Args:
        is_train: whether the input has targets.
        augmentations: augmentations or transforms, applied in order.
        image_format: "BGR" or "RGB".
        use_instance_mask: whether the targets have masks.
        instance_mask_format: "polygon" or "bitmask".
        recompute_boxes: compute the boxes from the transformed masks.
        use_keypoint: must be False, because there are no keypoints.
        keypoint_hflip_indices: must be None, for the same reason.
        precomputed_proposal_topk: must be None, because there are no precomputed proposals.

    Raises:
        ArgumentError: one of the last three is given.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "BGR",
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: Any = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        refuse(False, use_keypoint=use_keypoint)
        refuse(None, keypoint_hflip_indices=keypoint_hflip_indices, precomputed_proposal_topk=precomputed_proposal_topk)
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.recompute_boxes = recompute_boxes

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        augmentations: list[T.Augmentation] = utils.build_augmentation(cfg, is_train)
        crop = is_train and cfg.INPUT.CROP.ENABLED
        if crop:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": crop and cfg.MODEL.MASK_ON,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment the image of a data set dict, which is not changed.

        Returns:
            What the data set dict holds except for `annotations`, with `image` (uint8 Tensor[C, H, W]) and, for
            training, `instances`; see `sn2fpn.data.DatasetMapper`.

        Raises:
            UserError: the file cannot be decoded, or its size or a mask does not fit.
        """
        out = copy.deepcopy(dataset_dict)
        image = utils.read_image(out["file_name"], self.image_format)
        utils.check_image_size(out, image)
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        out["image"] = torch.from_numpy(np.array(aug_input.image.transpose(2, 0, 1), order="C"))
        annotations = out.pop("annotations", None)
        if self.is_train and annotations is not None:
            out["instances"] = self._targets(out, annotations, transforms, aug_input.image.shape[:2])
        return out

    def _targets(
        self,
        record: dict[str, Any],
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        size: tuple[int, int],
    ) -> Any:
        mask_format = self.instance_mask_format if self.use_instance_mask else None
        try:
            if mask_format is not None:
                given = record["height"], record["width"]
                annotations = [a if a.get("iscrowd", 0) else with_checked_mask(a, given) for a in annotations]
            targets = annotations_to_instances(
                annotations, transforms, size, mask_format, self.recompute_boxes and self.use_instance_mask
            )
        except ValueError as e:
            raise UserError(f"{record['file_name']}: {e}") from None
        return utils.filter_empty_instances(targets)


class PerImageSeed:
    """A mapper of one argument in the loaders of this package, which give each image a random generator of its own.

    Augmentations that draw from the global generators of NumPy, Python and torch therefore do not depend on the number
    of worker processes.

    Args:
        mapper: maps a data set dict to a model input.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        with seeded(rng):
            return self.mapper(record)
