"""Anchors: the reference boxes of each position of each pyramid level (Faster R-CNN, 2015, section 3.1.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import CfgNode
from ..errors import UserError
from ..structures import ShapeSpec

__all__ = ["AnchorGenerator", "build_anchor_generator"]


class AnchorGenerator(nn.Module):
    """Anchors of every size and aspect ratio, centred on every position of every level.

    An anchor of size s and aspect ratio a has width s / sqrt(a) and height s * sqrt(a).

    Args:
        sizes: per level, the square roots of the anchors' areas in input pixels; a single entry serves
            all levels.
        aspect_ratios: per level, height / width; a single entry serves all levels.
        strides: input pixels per map pixel, per level.
        offset: of the first centre from the image's corner, in strides, within [0, 1).

    Raises:
        UserError: as many lists as neither one nor the number of levels, or an offset out of range.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise UserError(f"MODEL.ANCHOR_GENERATOR.OFFSET expects a number within [0, 1), found {offset}")
        self.strides = tuple(strides)
        self.offset = offset
        sizes = _per_level(sizes, len(strides), "SIZES")
        aspect_ratios = _per_level(aspect_ratios, len(strides), "ASPECT_RATIOS")
        for level, (s, a) in enumerate(zip(sizes, aspect_ratios)):
            # not in the state dict: Detectron2's checkpoints do not have them
            self.register_buffer(f"cell_anchors_{level}", _cell_anchors(s, a), persistent=False)

    @property
    def cell_anchors(self) -> list[Tensor]:
        """Per level, (A, 4) anchors around the origin, sizes outermost."""
        return [getattr(self, f"cell_anchors_{level}") for level in range(len(self.strides))]

    @property
    def num_anchors(self) -> list[int]:
        """A, the number of anchors per position, for each level."""
        return [len(a) for a in self.cell_anchors]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Anchors for feature maps (N, C, H, W), high to low resolution.

        Returns:
            Per level, (H * W * A, 4) `(x1, y1, x2, y2)` in input pixels: rows, then columns, then anchors.
        """
        return [
            self._grid(f.shape[-2], f.shape[-1], stride, cell)
            for f, stride, cell in zip(features, self.strides, self.cell_anchors)
        ]

    def _grid(self, height: int, width: int, stride: int, cell: Tensor) -> Tensor:
        x = (torch.arange(width, dtype=torch.float32, device=cell.device) + self.offset) * stride
        y = (torch.arange(height, dtype=torch.float32, device=cell.device) + self.offset) * stride
        centres = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        return (centres.repeat(1, 1, 2)[:, :, None] + cell).reshape(-1, 4)


def _cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    wh = [(math.sqrt(s**2.0 / a), a * math.sqrt(s**2.0 / a)) for s in sizes for a in aspect_ratios]
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in wh], dtype=torch.float32)


def _per_level(values: Sequence[Sequence[float]], levels: int, key: str) -> list[Sequence[float]]:
    """One list per level; a single list (nested or plain) serves all of them."""
    key = f"MODEL.ANCHOR_GENERATOR.{key}"
    if not values:
        raise UserError(f"{key} is empty; expected one list of numbers, or one per level ({levels})")
    if not isinstance(values[0], Sequence):
        return [values] * levels  # type: ignore[list-item]
    if len(values) not in (1, levels):
        raise UserError(f"{key} has {len(values)} lists; expected 1, or one for each of the {levels} levels")
    return list(values) * (levels if len(values) == 1 else 1)


def build_anchor_generator(cfg: CfgNode, input_shapes: Sequence[ShapeSpec]) -> AnchorGenerator:
    """The anchors of `MODEL.ANCHOR_GENERATOR` for levels of the given strides."""
    c = cfg.MODEL.ANCHOR_GENERATOR
    return AnchorGenerator(c.SIZES, c.ASPECT_RATIOS, [s.stride for s in input_shapes], c.OFFSET)
