"""RoIAlign from the pyramid level that suits each box (FPN, Lin et al., 2017, eq. 1; Mask R-CNN, He et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision  # noqa: F401  which registers the operator
from torch import Tensor, nn

from ...errors import ArgumentError
from ...layers.cpu.roi_align import roi_align_pyramid
from ...ranges import check_count, check_each, check_number
from ..transfer import rows_of_groups

__all__ = ["ROIPooler", "assign_levels"]


def assign_levels(
    boxes: Tensor, min_level: int, max_level: int, canonical_size: float = 224.0, canonical_level: int = 4
) -> Tensor:
    """Return the pyramid level of each box: floor(canonical_level + log2(sqrt(area) / canonical_size)), limited.

    Args:
        boxes (Tensor[K, 4]): corners `(x1, y1, x2, y2)` in input pixels.
        min_level, max_level: log2 of the strides of the finest and the coarsest map.
        canonical_size: side in pixels of a square box that belongs to `canonical_level`.

    Returns:
        int64 Tensor[K], counted from `min_level`.
    """
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(canonical_level + torch.log2(size / canonical_size + 1e-8))
    return level.clamp(min_level, max_level).to(torch.int64) - min_level


class ROIPooler(nn.Module):
    """Pooling of boxes of any size to features of one size, each from the level that `assign_levels` chooses.

    Args:
        output_size: side P of the output in bins.
        strides: strides of the maps, fine to coarse; each is a power of two and twice the one before.
        sampling_ratio: number of samples per bin and axis; 0, or -1 as in torchvision, takes one for each map pixel
            that the bin spans.
        aligned: True ("ROIAlignV2") puts pixel centres at half-integers. False ("ROIAlign") is half a pixel off.
        canonical_box_size: side in pixels of a square box that belongs to the map of stride 16.

    Raises:
        ArgumentError: the strides do not double from one map to the next, or a number is out of its range.
    """

    def __init__(
        self,
        output_size: int,
        strides: Sequence[int],
        sampling_ratio: int = 0,
        aligned: bool = True,
        canonical_box_size: float = 224,
    ) -> None:
        super().__init__()
        self.output_size = check_count("output_size", output_size)
        self.sampling_ratio = check_count("sampling_ratio", sampling_ratio, at_least=-1)
        self.strides = tuple(check_each("strides", strides, check_count))
        self.min_level = int(math.log2(self.strides[0])) if self.strides else 0
        self.max_level = self.min_level + len(self.strides) - 1
        if not self.strides or self.strides != tuple(2**i for i in range(self.min_level, self.max_level + 1)):
            raise ArgumentError(
                "strides", f"expected powers of two that double from one to the next, found {list(strides)}"
            )
        self.aligned = aligned
        self.canonical_box_size = check_number("canonical_box_size", canonical_box_size, above=0)

    def levels(self, boxes: Tensor) -> Tensor:
        """Return the index of the map (int64 Tensor[K]) that each of the boxes (Tensor[K, 4]) is pooled from."""
        return assign_levels(boxes, self.min_level, self.max_level, self.canonical_box_size)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return the features of the K boxes of all images together, in their order.

        Args:
            features (Tensor[N, C, H, W] per level): the maps.
            boxes (Tensor[K_n, 4] per image): corners `(x1, y1, x2, y2)` in input pixels.

        Returns:
            Tensor[K, C, P, P].
        """
        box = torch.cat(list(boxes))
        image = torch.cat([b.new_full((len(b), 1), n) for n, b in enumerate(boxes)])
        pool = roi_align_pyramid if features[0].is_cpu else _roi_align_by_level
        options = (self.output_size, self.sampling_ratio, self.aligned)
        return pool(features, torch.cat([image, box], dim=1), self.levels(box), self.strides, *options)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, strides={self.strides}, sampling_ratio={self.sampling_ratio}, "
            f"aligned={self.aligned}, canonical_box_size={self.canonical_box_size:g}"
        )


def _roi_align_by_level(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Return what `roi_align_pyramid` returns, by torchvision's kernel."""
    rows = rows_of_groups(levels, len(features))
    # torchvision's Python function leaves the kernel for a slow form where deterministic algorithms are asked for.
    kernel = torch.ops.torchvision.roi_align
    dtype = features[0].dtype
    exact = torch.promote_types(dtype, torch.float32)  # like the other kernel; half precision would round the boxes
    pooled = [
        kernel(f.to(exact), rois[r].to(exact), 1.0 / stride, output_size, output_size, sampling_ratio, aligned)
        for f, r, stride in zip(features, rows, strides)
    ]
    return torch.cat(pooled)[torch.cat(rows).argsort()].to(dtype)
