"""C3, the cross-stage block that follows GSConvE-1 in the independent hierarchy pyramid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..ranges import check_count
from .activation import Activation
from .conv import ConvNormAct
from .norm import Norm

__all__ = ["C3"]


class C3(nn.Module):
    """A cross-stage block: half the channels run through `depth` inner blocks, the other half bypasses them.

        y = CBA1x1(cat(blocks(CBA1x1(x)), CBA1x1(x)))

    CBA is a convolution with norm and activation. Each inner block is CBA3x3 followed by CBA3x3, without an addition;
    YOLOv5's C3 has 1x1 followed by 3x3 inside. The source is the released code of Li, "Rethinking
    Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024.

    Args:
        channels: number of channels c of input and output, an even number.
        depth: number of inner blocks.
        norm: norm of all convolutions, see `get_norm`.
        activation: activation of all convolutions, see `get_activation`.

    Raises:
        ArgumentError: `channels` is odd, or a number is out of its range.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import C3
        >>> C3(16, depth=2)(torch.randn(2, 16, 17, 23)).shape
        torch.Size([2, 16, 17, 23])
    """

    def __init__(self, channels: int, depth: int = 1, *, norm: Norm = "BN", activation: Activation = "silu") -> None:
        super().__init__()
        check_count("depth", depth, at_least=0)
        if check_count("channels", channels) % 2:
            raise ArgumentError("channels", f"expected an even number, found {channels}")

        def conv(in_channels: int, out_channels: int, kernel_size: int = 1) -> ConvNormAct:
            return ConvNormAct(in_channels, out_channels, kernel_size, norm=norm, activation=activation)

        half = channels // 2
        self.a = conv(channels, half)
        self.b = conv(channels, half)
        self.blocks = nn.Sequential(*(nn.Sequential(conv(half, half, 3), conv(half, half, 3)) for _ in range(depth)))
        self.out = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map that the block makes of `x` (Tensor[N, c, H, W]), of the same shape."""
        return self.out(torch.cat((self.blocks(self.a(x)), self.b(x)), dim=1))
