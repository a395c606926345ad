"""Counting of floating-point operations while they are made: two for a multiply-add of convolutions and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torchvision  # noqa: F401 - registers the deformable convolution
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["FlopCounter", "count_flops"]


def _deform_conv(x: Any, weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Count a deformable convolution as a plain one of that size, without its sampling."""
    return 2 * prod(out_shape) * prod(weight[1:])


def _deform_conv_backward(grad: Sequence[int], x: Any, weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Count two products of the size of the forward pass: for the gradients of the weight and of the sampled inputs."""
    return 2 * 2 * prod(grad) * prod(weight[1:])


def _conv_backward(
    grad: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    mask: Sequence[bool],
    **_: Any,
) -> int:
    """Count one forward pass for the gradient of the input and one for that of the weight, where they are wanted.

    PyTorch's own formula counts the gradient of a grouped convolution's weight as that of an ungrouped one.
    """
    return (mask[0] + mask[1]) * 2 * prod(x if transposed else grad) * prod(weight[1:])


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.convolution_backward: _conv_backward,
    torch.ops.torchvision.deform_conv2d: _deform_conv,
    torch.ops.torchvision._deform_conv2d_backward: _deform_conv_backward,
}


class FlopCounter(FlopCounterMode):
    """A context that counts the operations inside of it."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_FORMULAS)


def count_flops(call: Callable[[], Any]) -> float:
    """Return the floating-point operations of a call in 10^9."""
    with FlopCounter() as counter:
        call()
    return counter.get_total_flops() / 1e9
