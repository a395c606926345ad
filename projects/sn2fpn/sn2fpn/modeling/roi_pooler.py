"""RoIAlign from the pyramid level that suits each box (FPN, Lin et al., 2017, eq. 1; Mask R-CNN, He et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..errors import UserError
from .roi_align import roi_align_pyramid

__all__ = ["ROIPooler", "assign_levels"]


def assign_levels(
    boxes: Tensor, min_level: int, max_level: int, canonical_size: float = 224.0, canonical_level: int = 4
) -> Tensor:
    """Pyramid level of each box: floor(canonical_level + log2(sqrt(area) / canonical_size)), limited.

    Args:
        boxes: (K, 4) in input pixels.
        min_level, max_level: log2 strides of the finest and coarsest map.
        canonical_size: side in pixels of a square box that belongs to `canonical_level`.

    Returns:
        (K,) int64, counted from `min_level`.
    """
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(canonical_level + torch.log2(size / canonical_size + 1e-8))
    return level.clamp(min_level, max_level).to(torch.int64) - min_level


class ROIPooler(nn.Module):
    """Features of fixed size for boxes of any size, from the level chosen by `assign_levels`.

    Args:
        output_size: P, the side of the output in bins.
        strides: of the maps, high to low resolution; each a power of two and twice the one before.
        sampling_ratio: samples per bin and axis; 0: one per map pixel that the bin spans (adaptive).
        aligned: True ("ROIAlignV2"): pixel centres lie at half-integers; False ("ROIAlign"): half a pixel off.

    Raises:
        UserError: strides that are no such pyramid.
    """

    def __init__(self, output_size: int, strides: Sequence[int], sampling_ratio: int = 0, aligned: bool = True) -> None:
        super().__init__()
        self.min_level = int(math.log2(strides[0]))
        self.max_level = self.min_level + len(strides) - 1
        if list(strides) != [2 ** (self.min_level + i) for i in range(len(strides))]:
            raise UserError(f"RoI pooling needs maps whose strides double from one to the next, found {list(strides)}")
        self.output_size = output_size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool K boxes, those of all images together, in their order.

        Args:
            features: per level, (N, C, H, W).
            boxes: per image, (K_n, 4) `(x1, y1, x2, y2)` in input pixels.

        Returns:
            (K, C, P, P).
        """
        box = torch.cat(list(boxes))
        image = torch.cat([b.new_full((len(b), 1), n) for n, b in enumerate(boxes)])
        rois = torch.cat([image, box], dim=1)
        levels = assign_levels(box, self.min_level, self.max_level)
        options = (self.output_size, self.sampling_ratio, self.aligned)
        if not features[0].is_cuda:
            return roi_align_pyramid(features, rois, levels, self.strides, *options)
        size, sampling_ratio, aligned = options
        rows = [(levels == level).nonzero().squeeze(1) for level in range(len(features))]
        pooled = [
            roi_align(f, rois[r], size, 1.0 / stride, sampling_ratio, aligned)
            for f, r, stride in zip(features, rows, self.strides)
        ]
        return torch.cat(pooled)[torch.cat(rows).argsort()]

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, strides={self.strides}, sampling_ratio={self.sampling_ratio}, "
            f"aligned={self.aligned}"
        )
