"""GSConv and its enhanced forms: a conv makes part of the channels, cheap convs derive the rest, then a shuffle.

The shuffle interleaves two halves of the channels, out[2j] = y[j], out[2j + 1] = y[j + c/2].
GSConv: Li et al., "Slim-neck by GSConv", 2022 (arXiv 2206.02424). GSConvE-1 and -2: Li, "Rethinking
Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024, as in the author's released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .activation import Activation
from .conv import Conv2d, ConvNormAct
from .init import kaiming_normal_per_group
from .norm import Norm

__all__ = ["GSConv", "GSConvE1", "GSConvE2"]


class GSConv(nn.Module):
    """x1 = CBA(x), x2 = CBA depthwise 5x5 (x1), y = shuffle(cat(x1, x2)); each half has c_out / 2 channels.

    Args:
        in_channels: c_in.
        out_channels: c_out, even.
        kernel_size, stride: of the first conv (kernel odd).
        norm, act: of both convs, see `get_norm` and `get_activation`.

    Raises:
        UserError (a ValueError): odd `out_channels` or an even kernel.

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
        act: Activation = "silu",
    ) -> None:
        super().__init__()
        half = _share("GSConv", out_channels, 2)
        self.main = ConvNormAct(in_channels, half, kernel_size, stride, norm=norm, act=act)
        self.depthwise = ConvNormAct(half, half, 5, groups=half, norm=norm, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, c_in, H, W]) -> Tensor[N, c_out, ceil(H / stride), ceil(W / stride)]."""
        x = self.main(x)
        return _interleave(x, self.depthwise(x))


class GSConvE1(nn.Module):
    """GSConvE-1, for normal models: x2 = GELU(depthwise3x3(dense3x3(x1))), linear up to the GELU (exact form).

    x1 = CBA(x) and x2 have c_out / 2 channels each; y = shuffle(cat(x1, x2)), so even output channels are x1.
    The auxiliary convs have neither bias nor norm.

    Args:
        in_channels: c_in.
        out_channels: c_out, even.
        kernel_size, stride: of the first conv (kernel odd).
        norm, act: of the first conv, see `get_norm` and `get_activation`.
        aux_kernel: of the dense auxiliary conv: 3 as in the released code, 1 as in a description of the paper.

    Raises:
        UserError (a ValueError): odd `out_channels` or an even kernel.

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
        act: Activation = "silu",
        aux_kernel: int = 3,
    ) -> None:
        super().__init__()
        half = _share("GSConvE-1", out_channels, 2)
        if aux_kernel % 2 == 0:
            raise UserError(f"GSConvE-1: aux_kernel must be odd (3 or 1), found {aux_kernel}")
        self.main = ConvNormAct(in_channels, half, kernel_size, stride, norm=norm, act=act)
        self.aux_dense = Conv2d(half, half, aux_kernel, padding=aux_kernel // 2, bias=False)
        self.aux_depthwise = Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        kaiming_normal_per_group(self.aux_dense)
        kaiming_normal_per_group(self.aux_depthwise)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, c_in, H, W]) -> Tensor[N, c_out, ceil(H / stride), ceil(W / stride)]."""
        x = self.main(x)
        return _interleave(x, F.gelu(self.aux_depthwise(self.aux_dense(x))))


class GSConvE2(nn.Module):
    """GSConvE-2, for light models: x1 = CBA(x) and three depthwise CBA of x1 with 9x9, 13x13, 17x17 kernels.

    Each part has c_out / 4 channels; y = shuffle(cat(x1, x2, x3, x4)), the same shuffle of two halves. The version of
    the author's GSConv repository (that of the ECCV release cannot run: its branches differ in size).

    Args:
        in_channels: c_in.
        out_channels: c_out, a multiple of 4.
        kernel_size, stride: of the first conv (kernel odd).
        norm, act: of all convs, see `get_norm` and `get_activation`.

    Raises:
        UserError (a ValueError): `out_channels` that 4 does not divide, or an even kernel.

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
        act: Activation = "silu",
    ) -> None:
        super().__init__()
        q = _share("GSConvE-2", out_channels, 4)
        self.main = ConvNormAct(in_channels, q, kernel_size, stride, norm=norm, act=act)
        self.depthwise9 = ConvNormAct(q, q, 9, groups=q, norm=norm, act=act)
        self.depthwise13 = ConvNormAct(q, q, 13, groups=q, norm=norm, act=act)
        self.depthwise17 = ConvNormAct(q, q, 17, groups=q, norm=norm, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, c_in, H, W]) -> Tensor[N, c_out, ceil(H / stride), ceil(W / stride)]."""
        x = self.main(x)
        first = torch.cat((x, self.depthwise9(x)), dim=1)
        second = torch.cat((self.depthwise13(x), self.depthwise17(x)), dim=1)
        return _interleave(first, second)


def _interleave(a: Tensor, b: Tensor) -> Tensor:
    """The shuffle of cat(a, b), without making the concatenation: a[0], b[0], a[1], b[1], … along channels."""
    if a.is_contiguous(memory_format=torch.channels_last):  # stays so
        pairs = torch.stack((a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)), dim=4)
        return pairs.flatten(3, 4).permute(0, 3, 1, 2)
    return torch.stack((a, b), dim=2).flatten(1, 2)


def _share(name: str, out_channels: int, parts: int) -> int:
    if out_channels % parts:
        raise UserError(f"{name}: out_channels must be a multiple of {parts}, found {out_channels}")
    return out_channels // parts
