"""Convolution with norm and activation as one module, named as in Detectron2's state dicts."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import UserError
from .activation import Activation, get_activation
from .init import kaiming_normal_per_group
from .norm import FrozenBatchNorm2d, Norm, get_norm

__all__ = ["Conv2d", "ConvNormAct"]


class Conv2d(nn.Conv2d):
    """`activation(norm(conv(x)))`; norm and activation are optional.

    State-dict names: `weight`, `bias`, `norm.weight`, `norm.bias`, `norm.running_mean`, … (Detectron2's).

    A frozen batch norm is a constant affine map per output channel, so it is folded into the convolution,
    conv(x, w) * scale + shift = conv(x, w * scale) + shift: no extra pass over the output, equal to rounding,
    and differentiable with respect to w.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in `nn.Conv2d`.
        bias: None (default): a bias exactly when there is no norm.
        norm: name or callable for `get_norm`, or a module that is used as it is.
        activation: name ("relu", "silu", "gelu") or callable.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import Conv2d
        >>> conv = Conv2d(3, 8, 3, stride=2, padding=1, norm="FrozenBN", activation="relu")
        >>> conv(torch.randn(1, 3, 17, 23)).shape
        torch.Size([1, 8, 9, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool | None = None,
        *,
        norm: Norm | nn.Module = None,
        activation: Activation = None,
    ) -> None:
        norm_module = norm if isinstance(norm, nn.Module) else get_norm(norm, out_channels)
        if bias is None:
            bias = norm_module is None
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.norm = norm_module
        self.activation = get_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (Tensor[N, C_in, H, W]) -> Tensor[N, C_out, H', W']."""
        if isinstance(self.norm, FrozenBatchNorm2d):
            scale, shift = self.norm.scale_and_shift()
            bias = shift if self.bias is None else shift + self.bias * scale
            x = self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), bias)
        else:
            x = self._conv_forward(x, self.weight, self.bias)
            if self.norm is not None:
                x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def extra_repr(self) -> str:
        name = getattr(self.activation, "__name__", None)
        return super().extra_repr() + (f", activation={name.rstrip('_')}" if name else "")


class ConvNormAct(Conv2d):
    """The conv block of the study's modules ("CBA"): conv, norm, activation; padding `kernel_size // 2`.

    With no norm the conv has a bias. Weights are Kaiming-normal with fan-out per group, norms start at
    (1, 0). (The released code leaves conv weights at PyTorch's default.)

    Args:
        in_channels, out_channels, groups: as in `nn.Conv2d`.
        kernel_size: odd; the output has ceil(H / stride) x ceil(W / stride) pixels.
        stride: of the conv.
        norm: name or callable for `get_norm`.
        act: name or callable for `get_activation`.

    Raises:
        UserError (a ValueError): an even kernel.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import ConvNormAct
        >>> ConvNormAct(8, 16, 3, stride=2)(torch.randn(2, 8, 17, 23)).shape
        torch.Size([2, 16, 9, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: Norm = "BN",
        act: Activation = "silu",
    ) -> None:
        if kernel_size % 2 == 0:
            raise UserError(f"conv block: kernel_size must be odd, found {kernel_size}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, norm=norm, activation=act
        )
        kaiming_normal_per_group(self)
