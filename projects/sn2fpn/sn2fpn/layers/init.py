"""Weight initialisation of convolutions and linear layers, under the names that the field uses."""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn

with warnings.catch_warnings():
    # fvcore compiles a loss with TorchScript on import, for which PyTorch warns. This project does not use that loss.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
    from fvcore.nn.weight_init import c2_msra_fill, c2_xavier_fill

__all__ = ["c2_msra_fill", "c2_xavier_fill", "kaiming_normal_per_group"]


@torch.no_grad()
def kaiming_normal_per_group(conv: nn.Conv2d) -> None:
    """Fill the kernel with values from N(0, 2 / fan_out), fan_out = kh * kw * out_channels / groups; zero the bias.

    PyTorch's `kaiming_normal_(mode="fan_out")` does not divide by the groups. A depthwise convolution of 256 channels
    would start 16 times too small, and branches without a norm would stay so.
    """
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
    conv.weight.normal_(0.0, math.sqrt(2.0 / fan_out))
    if conv.bias is not None:
        conv.bias.zero_()
