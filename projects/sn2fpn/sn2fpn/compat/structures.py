"""Detectron2's `structures`: boxes, masks, instances and padded batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ..structures import (
    BitMasks,
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    PolygonMasks,
    ShapeSpec,
    pairwise_iou,
    polygons_to_bitmask,
)
from .absent import absent

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "ShapeSpec",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "polygons_to_bitmask",
]

__getattr__ = absent(__name__, __all__)


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the area that each pair of boxes shares, in square pixels (Tensor[N, M])."""
    a, b = boxes1.tensor[:, None], boxes2.tensor
    sides = torch.minimum(a[..., 2:], b[:, 2:]) - torch.maximum(a[..., :2], b[:, :2])
    return sides.clamp(min=0).prod(dim=-1)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the share of each box of `boxes2` that lies in each box of `boxes1` (Tensor[N, M]); 0 for empty boxes."""
    return torch.nan_to_num(pairwise_intersection(boxes1, boxes2) / boxes2.area(), nan=0.0)
