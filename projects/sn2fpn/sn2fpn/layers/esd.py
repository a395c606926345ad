"""Extended-spatial-window downsampling (ESD): three parallel views of the input replace a stride-2 convolution.

    D = activation(norm(conv3x3/2(x))),   G = average pool 4x4/2,   M = max pool 4x4/2   (all with padding 1)
    ESD-1:  Y = G + M + D  (c_out = c_in),   Y = cat(G, M) + D  (c_out = 2 c_in)
    ESD-2:  Y = conv1x1(cat(G, M, D)),  without bias, norm or activation

Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024, and its released code. This module differs
from that code in two points. The pools round sizes up, so odd sizes work and even sizes give the same result. ESD-2's
1x1 convolution has 2 c_in + c_out inputs; these are the released 2 c_out inputs where that code works (c_out = 2 c_in),
and they fit every pair of channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, check_choice
from ..ranges import check_count
from .activation import Activation
from .conv import Conv2d, ConvNormAct
from .init import kaiming_normal_per_group
from .norm import Norm

__all__ = ["ESD1", "ESD2", "check_esd1_channels", "esd_average", "esd_fuse", "esd_fuse_conv"]


class ESD1(nn.Module):
    """ESD-1, which adds the three views. It has no parameters but those of the stride-2 convolution.

    Args:
        in_channels: number of input channels c_in.
        out_channels: number of output channels, c_in or 2 * c_in.
        kernel_size: kernel size of the dense branch, an odd number; the pools are always 4x4.
        stride: the stride, which must be 2.
        norm: norm of the dense branch, see `get_norm`.
        activation: activation of the dense branch, see `get_activation`; "relu" inside a ResNet.

    Attributes:
        dense: the branch D, a convolution with norm and activation.

    Raises:
        ArgumentError: c_out is neither c_in nor 2 * c_in, the stride is not 2, or the kernel size is even.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import ESD1
        >>> ESD1(8, 16)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 9, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        *,
        norm: Norm = "BN",
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        _check_stride(stride)
        check_esd1_channels(in_channels, out_channels)
        self.dense = ConvNormAct(in_channels, out_channels, kernel_size, 2, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (Tensor[N, c_in, H, W]) to Tensor[N, c_out, ceil(H / 2), ceil(W / 2)]."""
        return esd_fuse(x, self.dense(x))


class ESD2(nn.Module):
    """ESD-2, which mixes the three views linearly by a 1x1 convolution.

    Args:
        in_channels: number of input channels c_in.
        out_channels: number of output channels c_out.
        kernel_size: kernel size of the dense branch, an odd number; the pools are always 4x4.
        stride: the stride, which must be 2.
        norm: norm of the dense branch, see `get_norm`.
        activation: activation of the dense branch, see `get_activation`; "relu" inside a ResNet.
        fuse_init: initialisation of the 1x1 convolution, see `esd_fuse_conv`.

    Attributes:
        dense: the branch D, a convolution with norm and activation.
        fuse: the 1x1 convolution. Its inputs are G, M and D in this order.

    Raises:
        ArgumentError: the stride is not 2, the kernel size is even, or `fuse_init` is unknown.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import ESD2
        >>> ESD2(8, 12)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 12, 9, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        *,
        norm: Norm = "BN",
        activation: Activation = "silu",
        fuse_init: str = "default",
    ) -> None:
        super().__init__()
        _check_stride(stride)
        self.dense = ConvNormAct(in_channels, out_channels, kernel_size, 2, norm=norm, activation=activation)
        self.fuse = esd_fuse_conv(in_channels, out_channels, fuse_init)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (Tensor[N, c_in, H, W]) to Tensor[N, c_out, ceil(H / 2), ceil(W / 2)]."""
        return esd_fuse(x, self.dense(x), self.fuse)


def esd_fuse(x: Tensor, dense: Tensor, fuse: nn.Module | None = None) -> Tensor:
    """Fuse the output of the dense branch with the two pooled views of its input.

    Any existing stride-2 convolution, such as the conv2 of a ResNet, can be the dense branch.

    Args:
        x (Tensor[N, c_in, H, W]): the map that is downsampled.
        dense (Tensor[N, c_out, ceil(H / 2), ceil(W / 2)]): the output D of the dense branch.
        fuse: the 1x1 convolution of ESD-2, see `esd_fuse_conv`. Without it this is ESD-1, where c_out must be c_in
            or 2 * c_in.

    Returns:
        Tensor[N, c_out, ceil(H / 2), ceil(W / 2)].

    Raises:
        ArgumentError: the channels do not fit ESD-1.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import esd_fuse
        >>> esd_fuse(torch.randn(1, 8, 17, 23), torch.randn(1, 16, 9, 12)).shape
        torch.Size([1, 16, 9, 12])
    """
    average = esd_average(x)
    maximum = F.max_pool2d(x, 4, 2, padding=1, ceil_mode=True)
    if fuse is not None:
        return fuse(torch.cat((average, maximum, dense), dim=1))
    check_esd1_channels(x.shape[1], dense.shape[1])
    if x.shape[1] == dense.shape[1]:
        return average + maximum + dense
    return torch.cat((average, maximum), dim=1) + dense


def esd_average(x: Tensor) -> Tensor:
    """Return the view G, the average pool 4x4 with stride 2, padding 1 and sizes that are rounded up.

    On a GPU, channels-last maps are padded before they are pooled. PyTorch's own padding gives such maps a wrong
    gradient there, in 2.11 for example (github.com/pytorch/pytorch/issues/188344, which was closed in July 2026).

    Args:
        x (Tensor[N, C, H, W]): the map.

    Returns:
        Tensor[N, C, ceil(H / 2), ceil(W / 2)], in the memory layout of `x`.
    """
    if x.is_cpu or x.is_contiguous():
        return F.avg_pool2d(x, 4, 2, padding=1, ceil_mode=True)
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 4, 2, ceil_mode=True)


def esd_fuse_conv(in_channels: int, out_channels: int, fuse_init: str = "default") -> Conv2d:
    """Return the 1x1 convolution of ESD-2, from 2 * c_in + c_out to c_out channels and without bias.

    Args:
        in_channels, out_channels: c_in and c_out of the ESD.
        fuse_init: "default" for Kaiming-normal weights, or "dense_identity" for weights that copy D and ignore G and M,
            so that Y = D at the start.

    Raises:
        ArgumentError: `fuse_init` is unknown, or a number is not positive.
    """
    check_choice("fuse_init", fuse_init, ("default", "dense_identity"))
    check_count("in_channels", in_channels)
    check_count("out_channels", out_channels)
    fuse = Conv2d(2 * in_channels + out_channels, out_channels, 1, bias=False)
    if fuse_init == "dense_identity":
        with torch.no_grad():
            fuse.weight.zero_()
            fuse.weight[:, 2 * in_channels :, 0, 0].fill_diagonal_(1.0)
    else:
        kaiming_normal_per_group(fuse)
    return fuse


def check_esd1_channels(in_channels: int, out_channels: int) -> None:
    """Raise an ArgumentError unless c_out is c_in or 2 * c_in."""
    if out_channels not in (in_channels, 2 * in_channels):
        raise ArgumentError(
            "out_channels",
            f"ESD-1 keeps or doubles the channels, so {in_channels} or {2 * in_channels} was expected for in_channels"
            f" {in_channels}; found {out_channels}. ESD-2 takes any pair",
        )


def _check_stride(stride: int) -> None:
    if stride != 2:
        raise ArgumentError("stride", f"ESD halves the resolution, so 2 was expected; found {stride}")
