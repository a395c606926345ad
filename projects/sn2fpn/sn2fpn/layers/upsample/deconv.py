"""Upsampling by a transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...ranges import check_count
from .base import Doubling

__all__ = ["Deconv"]


class Deconv(Doubling):
    """A transposed 4x4 convolution of stride 2 and padding 1 from all channels to all channels.

    The dense transposed convolution is the "deconvolution" that the papers on CARAFE and DySample compare with. (Their
    kernel is 3x3. A 4x4 kernel reaches every fine pixel through four taps, so bilinear interpolation is one of its
    values.)

    A fresh module is bilinear interpolation with half-pixel centres, each channel by itself: the kernel of channel c to
    channel c is the outer product of (1, 3, 3, 1) / 4 with itself, all other weights are 0. The outermost rows
    and columns differ from `F.interpolate`, because pixels beyond the border count as 0 here, where interpolation
    repeats the edge: they are 3/4 of the edge values, and 9/16 in the corners.

    With C channels it has 16 C^2 + C parameters, and 16 C^2 multiply-adds per coarse pixel (1,048,576 at C = 256).

    Args:
        channels: number of channels C.

    Raises:
        ArgumentError: the number is not positive.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import Deconv
        >>> Deconv(8)(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_count("channels", channels)
        self.conv = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.conv.weight.zero_().diagonal().copy_(torch.outer(taps, taps).unsqueeze(-1))
            self.conv.bias.zero_()

    def double_size(self, coarse: Tensor) -> Tensor:
        """Return the map (Tensor[N, C, h, w]) at twice its height and width (Tensor[N, C, 2h, 2w])."""
        return self.conv(coarse)
