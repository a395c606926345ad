"""1x1 convolutions in oneDNN's kernels also with one thread.

With one thread, PyTorch computes 1x1 convolutions of less than 16 float32 maps as matrix products of the BLAS. On AMD
processors oneDNN's kernels, which PyTorch takes with more threads, are twice as fast, forward and backward. `Conv2d`
asks for them on a CPU by a dilation, which means nothing to a kernel of one pixel and which PyTorch leaves to oneDNN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["convolve"]


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a convolution with these weights makes of a map on a CPU (Tensor[N, C, H, W])."""
    if conv.kernel_size == (1, 1) and conv.padding_mode == "zeros" and _for_onednn(x):
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, dilation=2, groups=conv.groups)
    return conv._conv_forward(x, weight, bias)


def _for_onednn(x: Tensor) -> bool:
    """Return whether oneDNN can compute with a map, and its operators are not recorded, where the dilation puzzles."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return x.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not recorded
