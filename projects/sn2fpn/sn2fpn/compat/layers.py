"""Detectron2's `layers`: convolutions, norms, RoIAlign, non-maximum suppression and losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import RoIAlign, nms, roi_align
from torchvision.ops import complete_box_iou_loss as ciou_loss
from torchvision.ops import distance_box_iou_loss as diou_loss

from ..errors import ArgumentError
from ..layers import Conv2d as _Conv2d
from ..layers import FrozenBatchNorm2d, get_norm
from ..modeling.nms import grouped_nms
from ..modeling.roi_heads.mask_pasting import paste_masks
from ..structures import Boxes, ShapeSpec
from .absent import absent

__all__ = [
    "Conv2d",
    "FrozenBatchNorm2d",
    "ROIAlign",
    "ShapeSpec",
    "batched_nms",
    "cat",
    "ciou_loss",
    "diou_loss",
    "get_norm",
    "nms",
    "nonzero_tuple",
    "paste_masks_in_image",
    "roi_align",
]

__getattr__ = absent(__name__, __all__)
_POSITION_OF_BIAS = 7

batched_nms = grouped_nms


class Conv2d(_Conv2d):
    """A convolution with an optional norm and activation, which has a bias unless `bias` is False, as in Detectron2."""

    def __init__(self, *args: Any, bias: bool = True, **options: Any) -> None:
        given = len(args) > _POSITION_OF_BIAS  # among the positional arguments of `nn.Conv2d`
        super().__init__(*args, **(options if given else options | {"bias": bias}))


class ROIAlign(RoIAlign):
    """torchvision's RoIAlign, which puts pixel centres at half-integers (`aligned`) by default, as in Detectron2."""

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool = True
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio, aligned)


def cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors; a single one is returned itself."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of the entries that are not zero, one tensor per dimension."""
    return x.nonzero(as_tuple=True)


def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Stretch each mask (Tensor[N, M, M]) over its box; see `sn2fpn.modeling.roi_heads.mask_pasting.paste_masks`.

    Raises:
        ArgumentError: the threshold is negative, for which Detectron2 returns probabilities.
    """
    if threshold < 0:
        raise ArgumentError("threshold", f"expected a number of at least 0, found {threshold!r}")
    return paste_masks(masks, boxes.tensor if isinstance(boxes, Boxes) else boxes, image_shape, threshold)
