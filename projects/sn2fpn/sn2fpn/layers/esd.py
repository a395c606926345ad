"""Extended-spatial-window downsampling (ESD): three parallel views of the input in place of a stride-2 conv.

    D = conv3x3/2 -> norm -> act,   G = average pool 4x4/2,   M = max pool 4x4/2   (all pad 1)
    ESD-1:  Y = G + M + D  (c_out = c_in),   Y = cat(G, M) + D  (c_out = 2 c_in)
    ESD-2:  Y = conv1x1(cat(G, M, D)),  no bias, norm or activation

Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024, and its released code. Two departures
from that code: the pools round sizes up, so odd sizes work (even ones are unchanged), and ESD-2's 1x1 has
2 c_in + c_out inputs, which is the released 2 c_out where that worked (c_out = 2 c_in) and fits every pair.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from .activation import Activation
from .conv import Conv2d, ConvNormAct
from .init import kaiming_normal_per_group
from .norm import Norm

__all__ = ["ESD1", "ESD2", "check_esd1_channels", "esd_fuse", "esd_fuse_conv"]


class ESD1(nn.Module):
    """ESD-1, light fusion by addition: no parameters beside those of the stride-2 conv.

    Args:
        in_channels: c_in.
        out_channels: c_in or 2 * c_in.
        kernel_size: of the dense branch only (odd); the pools are fixed at 4x4.
        stride: 2, nothing else.
        norm: of the dense branch, see `get_norm`.
        act: of the dense branch, see `get_activation`; "relu" inside a ResNet.

    Attributes:
        dense: the branch D, a conv with norm and activation.

    Raises:
        UserError (a ValueError): another channel pair, stride or an even kernel.

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
        act: Activation = "silu",
    ) -> None:
        super().__init__()
        _check_stride(stride)
        check_esd1_channels(in_channels, out_channels)
        self.dense = ConvNormAct(in_channels, out_channels, kernel_size, 2, norm=norm, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, c_in, H, W]) -> Tensor[N, c_out, ceil(H / 2), ceil(W / 2)]."""
        return esd_fuse(x, self.dense(x))


class ESD2(nn.Module):
    """ESD-2, learnable linear fusion of the three views by a 1x1 conv.

    Args:
        in_channels, out_channels: any pair.
        kernel_size: of the dense branch only (odd); the pools are fixed at 4x4.
        stride: 2, nothing else.
        norm: of the dense branch, see `get_norm`.
        act: of the dense branch, see `get_activation`; "relu" inside a ResNet.
        fuse_init: "default" (Kaiming-normal), or "dense_identity": starts as Y = D.

    Attributes:
        dense: the branch D, a conv with norm and activation.
        fuse: the 1x1 conv; its inputs are G, M, D in this order.

    Raises:
        UserError (a ValueError): another stride, an even kernel or an unknown `fuse_init`.

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
        act: Activation = "silu",
        fuse_init: str = "default",
    ) -> None:
        super().__init__()
        _check_stride(stride)
        self.dense = ConvNormAct(in_channels, out_channels, kernel_size, 2, norm=norm, act=act)
        self.fuse = esd_fuse_conv(in_channels, out_channels, fuse_init)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, c_in, H, W]) -> Tensor[N, c_out, ceil(H / 2), ceil(W / 2)]."""
        return esd_fuse(x, self.dense(x), self.fuse)


def esd_fuse(x: Tensor, dense: Tensor, fuse: nn.Module | None = None) -> Tensor:
    """Fuse the dense branch's output with the two pooled views of its input.

    Lets any existing stride-2 conv (a ResNet's conv2) serve as the dense branch.

    Args:
        x (Tensor[N, c_in, H, W]): the map being downsampled.
        dense (Tensor[N, c_out, ceil(H / 2), ceil(W / 2)]): D.
        fuse: ESD-2's 1x1 conv (see `esd_fuse_conv`); None: ESD-1, which needs c_out in (c_in, 2 * c_in).

    Returns:
        Tensor[N, c_out, ceil(H / 2), ceil(W / 2)].

    Example:
        >>> import torch
        >>> from sn2fpn.layers import esd_fuse
        >>> esd_fuse(torch.randn(1, 8, 17, 23), torch.randn(1, 16, 9, 12)).shape
        torch.Size([1, 16, 9, 12])
    """
    average = F.avg_pool2d(x, 4, 2, padding=1, ceil_mode=True)
    maximum = F.max_pool2d(x, 4, 2, padding=1, ceil_mode=True)
    if fuse is not None:
        return fuse(torch.cat((average, maximum, dense), dim=1))
    check_esd1_channels(x.shape[1], dense.shape[1])
    if x.shape[1] == dense.shape[1]:
        return average + maximum + dense
    return torch.cat((average, maximum), dim=1) + dense


def esd_fuse_conv(in_channels: int, out_channels: int, init: str = "default") -> Conv2d:
    """ESD-2's 1x1 conv, 2 * c_in + c_out -> c_out channels, without bias.

    Args:
        in_channels, out_channels: c_in and c_out of the ESD.
        init: "default" (Kaiming-normal), or "dense_identity": copies D and has zeros on G and M.

    Raises:
        UserError: unknown `init`.
    """
    fuse = Conv2d(2 * in_channels + out_channels, out_channels, 1, bias=False)
    if init == "dense_identity":
        with torch.no_grad():
            fuse.weight.zero_()
            fuse.weight[:, 2 * in_channels :, 0, 0].fill_diagonal_(1.0)
    elif init == "default":
        kaiming_normal_per_group(fuse)
    else:
        hint = did_you_mean(init, ("default", "dense_identity"))
        raise UserError(f"MODEL.ESD.FUSE_INIT: unknown initialisation {init!r}{hint}")
    return fuse


def check_esd1_channels(in_channels: int, out_channels: int) -> None:
    """Raise UserError (a ValueError) unless c_out is c_in or 2 * c_in."""
    if out_channels not in (in_channels, 2 * in_channels):
        raise UserError(
            f"ESD-1 keeps or doubles the channels: out_channels must be {in_channels} or {2 * in_channels} for"
            f" in_channels {in_channels}, found {out_channels} (ESD-2 takes any pair)"
        )


def _check_stride(stride: int) -> None:
    if stride != 2:
        raise UserError(f"ESD halves the resolution: stride must be 2, found {stride}")
