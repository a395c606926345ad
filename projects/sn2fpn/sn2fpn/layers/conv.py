"""Convolutions with norm and activation in one module."""

from __future__ import annotations

from torch import Tensor, nn

from ..ranges import check_count, check_odd
from .activation import Activation, get_activation
from .cpu.pointwise import pointwise_conv
from .init import kaiming_normal_per_group
from .norm import FrozenBatchNorm2d, Norm, get_norm

__all__ = ["Conv2d", "ConvNormAct"]


class Conv2d(nn.Conv2d):
    """A 2D convolution, followed by an optional norm and an optional activation.

    The names in the state dict are those of Detectron2: `weight`, `bias`, `norm.weight`, `norm.bias`,
    `norm.running_mean` and so on.

    A frozen batch norm is a constant affine map per output channel, so the module folds it into the convolution:
    conv(x, w) * scale + shift = conv(x, w * scale) + shift. This saves a pass over the output. The result is equal up
    to rounding and differentiable with respect to w.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as in `nn.Conv2d`.
        bias: whether the convolution has a bias. By default it has one if there is no norm.
        norm: name or callable for `get_norm`, or a module.
        activation: name or callable for `get_activation`.

    Raises:
        ArgumentError: the norm or the activation is unknown.

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
        padding_mode: str = "zeros",
        *,
        norm: Norm | nn.Module = None,
        activation: Activation = None,
    ) -> None:
        norm_module = norm if isinstance(norm, nn.Module) else get_norm(norm, out_channels)
        if bias is None:
            bias = norm_module is None
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self.norm = norm_module
        self.activation = get_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved map (Tensor[N, C_out, H', W']) of `x` (Tensor[N, C_in, H, W])."""
        if isinstance(self.norm, FrozenBatchNorm2d):
            scale, shift = self.norm.scale_and_shift()
            bias = shift if self.bias is None else shift + self.bias * scale
            x = self._convolve(x, self.weight * scale.view(-1, 1, 1, 1), bias)
        else:
            x = self._convolve(x, self.weight, self.bias)
            if self.norm is not None:
                x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 1) and self.padding_mode == "zeros":
            return pointwise_conv(x, weight, bias, self.stride, self.padding, self.groups)
        return self._conv_forward(x, weight, bias)

    def extra_repr(self) -> str:
        name = getattr(self.activation, "__name__", None)
        return super().extra_repr() + (f", activation={name.rstrip('_')}" if name else "")


class ConvNormAct(Conv2d):
    """The convolution block of the study's modules ("CBA"): convolution, norm and activation.

    The padding is `kernel_size // 2`, so the output has ceil(H / stride) x ceil(W / stride) pixels. Without a norm the
    convolution has a bias. Weights start Kaiming-normal with fan-out per group; the released code leaves them at
    PyTorch's default.

    Args:
        in_channels, out_channels, stride, groups: as in `nn.Conv2d`.
        kernel_size: side of the kernel, an odd number.
        norm: name or callable for `get_norm`.
        activation: name or callable for `get_activation`.

    Raises:
        ArgumentError: the kernel size is even, a number is not positive, or the norm or the activation is unknown.

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
        activation: Activation = "silu",
    ) -> None:
        check_count("in_channels", in_channels)
        check_count("out_channels", out_channels)
        check_odd("kernel_size", kernel_size)
        check_count("stride", stride)
        padding = kernel_size // 2
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, norm=norm, activation=activation
        )
        kaiming_normal_per_group(self)
