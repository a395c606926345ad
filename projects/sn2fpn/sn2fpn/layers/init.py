"""Weight initialisation of convolutions and linear layers, under the names that the field uses."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["c2_msra_fill", "c2_xavier_fill", "kaiming_normal_per_group"]


def c2_msra_fill(layer: nn.Conv2d | nn.Linear) -> None:
    """Fill the weight as Caffe2's "MSRAFill" does, from N(0, 2 / fan_out), and zero the bias."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _zero_bias(layer)


def c2_xavier_fill(layer: nn.Conv2d | nn.Linear) -> None:
    """Fill the weight as Caffe2's "XavierFill" does, uniformly in ±sqrt(3 / fan_in), and zero the bias."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    _zero_bias(layer)


@torch.no_grad()
def kaiming_normal_per_group(conv: nn.Conv2d) -> None:
    """Fill the kernel with values from N(0, 2 / fan_out), fan_out = kh * kw * out_channels / groups; zero the bias.

    PyTorch's `kaiming_normal_(mode="fan_out")` does not divide by the groups. A depthwise convolution of 256 channels
    would start 16 times too small, and branches without a norm would stay so.
    """
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
    conv.weight.normal_(0.0, math.sqrt(2.0 / fan_out))
    _zero_bias(conv)


def _zero_bias(layer: nn.Module) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
