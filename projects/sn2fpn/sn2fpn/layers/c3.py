"""C3, the cross-stage block that follows GSConvE-1 in the independent hierarchy pyramid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UserError
from .activation import Activation
from .conv import ConvNormAct
from .norm import Norm

__all__ = ["C3"]


class C3(nn.Module):
    """y = CBA1x1(cat(blocks(CBA1x1(x)), CBA1x1(x))), each inner block CBA3x3 -> CBA3x3 without addition.

    From the released code of Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024: half the
    channels run through `depth` blocks and the other half bypass them. (YOLOv5's C3 has 1x1 -> 3x3 inside.)

    Args:
        channels: c of input and output, even.
        depth: number of inner blocks n.
        norm, act: of all convs, see `get_norm` and `get_activation`.

    Raises:
        UserError (a ValueError): odd `channels`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import C3
        >>> C3(16, depth=2)(torch.randn(2, 16, 17, 23)).shape
        torch.Size([2, 16, 17, 23])
    """

    def __init__(self, channels: int, depth: int = 1, *, norm: Norm = "BN", act: Activation = "silu") -> None:
        super().__init__()
        if channels % 2:
            raise UserError(f"C3: channels must be even, found {channels}")
        half = channels // 2
        self.a = ConvNormAct(channels, half, norm=norm, act=act)
        self.b = ConvNormAct(channels, half, norm=norm, act=act)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    ConvNormAct(half, half, 3, norm=norm, act=act), ConvNormAct(half, half, 3, norm=norm, act=act)
                )
                for _ in range(depth)
            )
        )
        self.out = ConvNormAct(channels, channels, norm=norm, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, c, H, W]) -> same shape."""
        return self.out(torch.cat((self.blocks(self.a(x)), self.b(x)), dim=1))
