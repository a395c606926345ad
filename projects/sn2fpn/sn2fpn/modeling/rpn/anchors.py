"""Anchors: the reference boxes at each position of each pyramid level (Faster R-CNN, 2015, section 3.1.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...config import CfgNode
from ...errors import ArgumentError, argument_names, keys_of
from ...ranges import check_count, check_each, check_number
from ...structures import ShapeSpec

__all__ = ["AnchorGenerator", "build_anchor_generator"]


class AnchorGenerator(nn.Module):
    """A generator of anchors of every size and aspect ratio, centred on every position of every level.

    An anchor of size s and aspect ratio a has width s / sqrt(a) and height s * sqrt(a).

    Args:
        sizes: one list per level with the square roots of the anchors' areas, in input pixels. A single list
            serves all levels.
        aspect_ratios: one list per level with the ratios height / width. A single list serves all levels.
        strides: the number of input pixels per map pixel of each level.
        offset: the distance of the first centre from the image's corner, in strides, in [0, 1).

    Raises:
        ArgumentError: the number of lists is neither 1 nor the number of levels, a list is empty, or a number is out of
            its range.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.offset = check_number("offset", offset, at_least=0, below=1)
        self.strides = tuple(check_each("strides", strides, check_count))
        sizes = _per_level("sizes", sizes, len(strides))
        aspect_ratios = _per_level("aspect_ratios", aspect_ratios, len(strides))
        for level, (s, a) in enumerate(zip(sizes, aspect_ratios)):
            # The anchors are not in the state dict because Detectron2's checkpoints do not have them.
            self.register_buffer(f"cell_anchors_{level}", _cell_anchors(s, a), persistent=False)

    @property
    def cell_anchors(self) -> list[Tensor]:
        """For each level, the A anchors around the origin (Tensor[A, 4]); sizes vary slowest."""
        return [getattr(self, f"cell_anchors_{level}") for level in range(len(self.strides))]

    @property
    def num_anchors(self) -> list[int]:
        """The number of anchors per position of each level."""
        return [len(a) for a in self.cell_anchors]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors for feature maps.

        Args:
            features (Tensor[N, C, H, W]): the maps, from high to low resolution.

        Returns:
            For each level a Tensor[H * W * A, 4] of boxes `(x1, y1, x2, y2)` in input pixels, ordered by row, then
            column, then anchor.
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


def _per_level(argument: str, values: Sequence[Sequence[float]], levels: int) -> list[Sequence[float]]:
    """Return one list per level; a single list, nested or plain, serves all of them."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ArgumentError(
            argument, f"expected one list of numbers, or one for each of {levels} levels, found {values!r}"
        )
    if not isinstance(values[0], Sequence):
        return [check_each(argument, values, check_number, above=0)] * levels
    if len(values) not in (1, levels):
        raise ArgumentError(argument, f"expected one list, or one for each of {levels} levels, found {len(values)}")
    lists = [check_each(f"{argument}[{i}]", level, check_number, above=0) for i, level in enumerate(values)]
    if not all(lists):
        raise ArgumentError(argument, f"expected at least one number for each level, found {list(values)}")
    return lists * (levels if len(lists) == 1 else 1)


def build_anchor_generator(cfg: CfgNode, input_shapes: Sequence[ShapeSpec]) -> AnchorGenerator:
    """Return the anchor generator of `MODEL.ANCHOR_GENERATOR` for levels of the given strides."""
    c = cfg.MODEL.ANCHOR_GENERATOR
    with argument_names(keys_of("MODEL.ANCHOR_GENERATOR")):
        return AnchorGenerator(c.SIZES, c.ASPECT_RATIOS, [s.stride for s in input_shapes], c.OFFSET)
