"""Upsampling by fixed interpolation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import Upsample, resize
from .sni import soft_nearest_add

__all__ = ["Bilinear", "Nearest"]


class Nearest(Upsample):
    """Nearest-neighbour interpolation, the upsampling of FPN (Lin et al., CVPR 2017). It has no parameters.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import Nearest
        >>> Nearest()(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """

    def forward(self, coarse: Tensor, size: Sequence[int]) -> Tensor:
        """Return the coarse map (Tensor[N, C, h, w]) at the given size (Tensor[N, C, H, W])."""
        return coarse if coarse.shape[2:] == tuple(size) else resize(coarse, size, "nearest")

    def add(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the sum of the fine map and the upsampled coarse map, without making the upsampled map."""
        return soft_nearest_add(fine, coarse, alpha=1.0)


class Bilinear(Upsample):
    """Bilinear interpolation. It has no parameters.

    Args:
        align_corners: True puts the centres of the corner pixels of both maps on top of each other. False (default)
            aligns the outer edges of the corner pixels (half-pixel centres).

    Example:
        >>> import torch
        >>> from sn2fpn.layers import Bilinear
        >>> Bilinear()(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """

    def __init__(self, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, coarse: Tensor, size: Sequence[int]) -> Tensor:
        """Return the coarse map (Tensor[N, C, h, w]) at the given size (Tensor[N, C, H, W])."""
        if coarse.shape[2:] == tuple(size):
            return coarse
        return resize(coarse, size, "bilinear", self.align_corners)

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}"
