"""GSConv and its enhanced forms.

A convolution makes part of the channels, cheap convolutions derive the rest from these, and a shuffle interleaves the
two halves of the channels: out[2j] = y[j], out[2j + 1] = y[j + c/2]. In the equations, CBA is a convolution with norm
and activation.

GSConv: Li et al., "Slim-neck by GSConv", 2022 (arXiv 2206.02424). GSConvE-1 and -2: Li, "Rethinking
Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024, as in the author's released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from ..ranges import check_count, check_odd
from .activation import Activation
from .conv import Conv2d, ConvNormAct
from .init import kaiming_normal_per_group
from .norm import Norm

__all__ = ["GSConv", "GSConvE1", "GSConvE2"]


class GSConv(nn.Module):
    """GSConv: a convolution makes half of the channels, and a depthwise convolution derives the other half.

        x1 = CBA(x),  x2 = CBA_depthwise5x5(x1),  y = shuffle(cat(x1, x2))

    Args:
        in_channels: number of input channels c_in.
        out_channels: number of output channels c_out, an even number.
        kernel_size, stride: kernel size (an odd number) and stride of the first convolution.
        norm: norm of both convolutions, see `get_norm`.
        activation: activation of both convolutions, see `get_activation`.

    Raises:
        ArgumentError: `out_channels` is odd, or `kernel_size` is even.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import GSConv
        >>> GSConv(8, 16, 3, stride=2)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 9, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        norm: Norm = "BN",
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        half = _share(out_channels, 2)
        self.main = ConvNormAct(in_channels, half, kernel_size, stride, norm=norm, activation=activation)
        self.depthwise = ConvNormAct(half, half, 5, groups=half, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (Tensor[N, c_in, H, W]) to Tensor[N, c_out, ceil(H / stride), ceil(W / stride)]."""
        x = self.main(x)
        return _interleave(x, self.depthwise(x))


class GSConvE1(nn.Module):
    """GSConvE-1, for models of normal size: a dense and a depthwise convolution derive the second half.

        x1 = CBA(x),  x2 = GELU(depthwise3x3(dense3x3(x1))),  y = shuffle(cat(x1, x2))

    The even output channels are x1. The two auxiliary convolutions have neither bias nor norm, and GELU has the exact
    form.

    Args:
        in_channels: number of input channels c_in.
        out_channels: number of output channels c_out, an even number.
        kernel_size, stride: kernel size (an odd number) and stride of the first convolution.
        norm: norm of the first convolution, see `get_norm`.
        activation: activation of the first convolution, see `get_activation`.
        aux_kernel: kernel size of the dense auxiliary convolution: 3 as in the released code, or 1 as in a description
            of the paper.

    Raises:
        ArgumentError: `out_channels` is odd, or a kernel size is even.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import GSConvE1
        >>> GSConvE1(8, 16)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 17, 23])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        norm: Norm = "BN",
        activation: Activation = "silu",
        aux_kernel: int = 3,
    ) -> None:
        super().__init__()
        half = _share(out_channels, 2)
        check_odd("aux_kernel", aux_kernel)
        self.main = ConvNormAct(in_channels, half, kernel_size, stride, norm=norm, activation=activation)
        self.aux_dense = Conv2d(half, half, aux_kernel, padding=aux_kernel // 2, bias=False)
        self.aux_depthwise = Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        kaiming_normal_per_group(self.aux_dense)
        kaiming_normal_per_group(self.aux_depthwise)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (Tensor[N, c_in, H, W]) to Tensor[N, c_out, ceil(H / stride), ceil(W / stride)]."""
        x = self.main(x)
        return _interleave(x, F.gelu(self.aux_depthwise(self.aux_dense(x))))


class GSConvE2(nn.Module):
    """GSConvE-2, for light models: three depthwise convolutions with large kernels derive three quarters.

        x1 = CBA(x),  x2, x3, x4 = CBA_depthwise(x1) with kernels 9x9, 13x13, 17x17,  y = shuffle(cat(x1, x2, x3, x4))

    The shuffle interleaves the two halves (x1, x2) and (x3, x4). This is the version of the author's GSConv repository;
    the one in the ECCV release does not run, because its branches differ in size.

    Args:
        in_channels: number of input channels c_in.
        out_channels: number of output channels c_out, a multiple of 4.
        kernel_size, stride: kernel size (an odd number) and stride of the first convolution.
        norm: norm of all convolutions, see `get_norm`.
        activation: activation of all convolutions, see `get_activation`.

    Raises:
        ArgumentError: 4 does not divide `out_channels`, or `kernel_size` is even.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import GSConvE2
        >>> GSConvE2(8, 16)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 17, 23])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        norm: Norm = "BN",
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        quarter = _share(out_channels, 4)
        self.main = ConvNormAct(in_channels, quarter, kernel_size, stride, norm=norm, activation=activation)
        self.depthwise9 = ConvNormAct(quarter, quarter, 9, groups=quarter, norm=norm, activation=activation)
        self.depthwise13 = ConvNormAct(quarter, quarter, 13, groups=quarter, norm=norm, activation=activation)
        self.depthwise17 = ConvNormAct(quarter, quarter, 17, groups=quarter, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (Tensor[N, c_in, H, W]) to Tensor[N, c_out, ceil(H / stride), ceil(W / stride)]."""
        x = self.main(x)
        first = torch.cat((x, self.depthwise9(x)), dim=1)
        second = torch.cat((self.depthwise13(x), self.depthwise17(x)), dim=1)
        return _interleave(first, second)


def _interleave(a: Tensor, b: Tensor) -> Tensor:
    """Return the channels a[0], b[0], a[1], b[1], …, which is the shuffle of cat(a, b), in the layout of `a`."""
    if a.is_contiguous(memory_format=torch.channels_last):
        pairs = torch.stack((a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)), dim=4)
        return pairs.flatten(3, 4).permute(0, 3, 1, 2)
    return torch.stack((a, b), dim=2).flatten(1, 2)


def _share(out_channels: int, parts: int) -> int:
    """Return the number of channels of one of several equal parts."""
    if check_count("out_channels", out_channels) % parts:
        raise ArgumentError("out_channels", f"expected a multiple of {parts}, found {out_channels}")
    return out_channels // parts
