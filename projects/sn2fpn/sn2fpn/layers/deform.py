"""Deformable convolution whose offsets and masks come from a convolution of their own.

    y(p) = b + sum_k w_k * m_k(p) * x(p + k + d_k(p)),  (d, logit m) = conv(guide)

k runs over the taps of the kernel. x is read bilinearly between its pixels and is 0 outside. Dai et al., "Deformable
Convolutional Networks", ICCV 2017; the masks m are from Zhu et al., "Deformable ConvNets v2", CVPR 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from ..errors import ArgumentError
from ..ranges import check_count
from .cpu.deform_conv import deform_conv2d_by_grid

__all__ = ["DeformConv2d"]


class DeformConv2d(nn.Conv2d):
    """A deformable 2D convolution with its own offset convolution.

    The offset convolution starts at zero. A fresh layer therefore equals the plain convolution, or half of it (before
    the bias) if it is modulated.

    Channel 2 * taps * group + 2 * tap of the offset convolution is dy, and the next one is dx, in pixels of x; taps
    are counted along the rows of the kernel. The mask logits follow, one per tap and group. Positions are computed in
    float32 under autocast too.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as in `nn.Conv2d`, as single numbers; by default a 3x3
            kernel with a padding of 1.
        offset_groups: number of equal slices of the input channels that have offsets and masks of their own.
        modulated: True multiplies what each tap reads by a mask m = sigmoid(logit) per group and output pixel.

    Raises:
        ArgumentError: `offset_groups` does not divide the input channels, or a number is out of its range.

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
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size, "stride": stride}
        for argument, found in sizes.items():
            check_count(argument, found)
        check_count("padding", padding, at_least=0)
        if in_channels % check_count("offset_groups", offset_groups):
            raise ArgumentError(
                "offset_groups", f"expected a divisor of the {in_channels} input channels, found {offset_groups}"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.offset_channels = 2 * kernel_size**2 * offset_groups
        masks = self.offset_channels // 2 if modulated else 0
        self.offset = nn.Conv2d(in_channels, self.offset_channels + masks, kernel_size, stride, padding)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """Return the convolved map (Tensor[N, C_out, H', W']) in the memory layout of `x`.

        Args:
            x (Tensor[N, C_in, H, W]): the input.
            guide (Tensor[N, C_in, H, W]): the map from which the offsets and masks are computed; by default `x`.
        """
        offset = self.offset(x if guide is None else guide)
        dtype, layout = offset.dtype, _layout(x)
        exact = torch.promote_types(
            dtype, torch.float32
        )  # the operator does not take bfloat16, and positions need the digits
        offset, mask = offset.to(exact), None
        if offset.shape[1] > self.offset_channels:
            offset, mask = offset[:, : self.offset_channels], offset[:, self.offset_channels :].sigmoid()
        conv = deform_conv2d_by_grid if x.is_cpu and not _is_traced() else deform_conv2d
        y = conv(x.to(exact), offset, self.weight.to(exact), self.bias.to(exact), self.stride, self.padding, mask=mask)
        return y.to(dtype, memory_format=layout)

    def plain(self, x: Tensor) -> Tensor:
        """Return the plain convolution of `x` with this kernel: all offsets are 0 and all masks are 1."""
        return self._conv_forward(x, self.weight, self.bias)


def _is_traced() -> bool:
    """Return whether `torch.jit.trace`, `torch.export` or `torch.compile` runs, which keep the operator."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _layout(x: Tensor) -> torch.memory_format:
    """Return the memory format of the map; a map that is in both counts as contiguous."""
    inside = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if inside else torch.contiguous_format
