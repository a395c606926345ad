"""Deformable convolution whose offsets (and masks) come from a conv of their own.

    y(p) = b + sum_k w_k * m_k(p) * x(p + k + d_k(p)),  (d, logit m) = conv(guide)

Dai et al., "Deformable Convolutional Networks", ICCV 2017; with the masks m, Zhu et al., "Deformable ConvNets v2",
CVPR 2019. x is read bilinearly between its pixels, and is 0 outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from ..errors import UserError
from .cpu.deform_conv import deform_conv2d_by_grid

__all__ = ["DeformConv2d"]


class DeformConv2d(nn.Conv2d):
    """Deformable conv; the offset conv starts at zero, so a fresh layer is the plain conv (halved, if modulated).

    Offset channels: 2 * taps * group + 2 * tap + (0: dy, 1: dx), in pixels of x, taps row-major over the kernel.
    Modulated, taps * offset_groups mask logits follow. Positions are computed in float32 under autocast too.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as in `nn.Conv2d`.
        offset_groups: g; the j-th of g equal slices of x's channels has its own offsets (and masks).
        modulated: masks m = sigmoid(logits), one per tap, group and output pixel; else m = 1.

    Raises:
        UserError (a ValueError): channels that `offset_groups` does not divide.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import DeformConv2d
        >>> DeformConv2d(8, 16, stride=2)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 9, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        *,
        offset_groups: int = 1,
        modulated: bool = False,
    ) -> None:
        if offset_groups < 1 or in_channels % offset_groups:
            raise UserError(f"deformable conv: {offset_groups} offset groups do not divide {in_channels} channels")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.offset_channels = 2 * kernel_size**2 * offset_groups
        masks = self.offset_channels // 2 if modulated else 0
        self.offset = nn.Conv2d(in_channels, self.offset_channels + masks, kernel_size, stride, padding)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """`x` (Tensor[N, C_in, H, W]) -> Tensor[N, C_out, H', W'] in the layout of x.

        `guide` (Tensor[N, C_in, H, W]): the map that the offsets are computed from; None: x.
        """
        offset = self.offset(x if guide is None else guide)
        dtype, layout = offset.dtype, _layout(x)
        exact = torch.promote_types(dtype, torch.float32)  # the op knows no bfloat16; positions need the digits
        offset, mask = offset.to(exact), None
        if offset.shape[1] > self.offset_channels:
            offset, mask = offset[:, : self.offset_channels], offset[:, self.offset_channels :].sigmoid()
        conv = deform_conv2d_by_grid if x.is_cpu and not torch.jit.is_tracing() else deform_conv2d
        y = conv(x.to(exact), offset, self.weight.to(exact), self.bias.to(exact), self.stride, self.padding, mask=mask)
        return y.to(dtype, memory_format=layout)

    def plain(self, x: Tensor) -> Tensor:
        """The ordinary conv with this kernel: all offsets 0, all masks 1."""
        return self._conv_forward(x, self.weight, self.bias)


def _layout(x: Tensor) -> torch.memory_format:
    inside = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if inside else torch.contiguous_format
