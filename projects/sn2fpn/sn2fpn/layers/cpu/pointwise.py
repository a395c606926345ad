"""1x1 convolutions in oneDNN's kernels, also with one thread.

With one thread, PyTorch computes 1x1 convolutions of less than 16 float32 maps as matrix products of the BLAS. On AMD
processors oneDNN's kernels, which PyTorch takes with more threads, are twice as fast, forward and backward.
`pointwise_conv` asks for them on a CPU by a dilation, which means nothing to a kernel of one pixel and which PyTorch
leaves to oneDNN. Contiguous maps keep PyTorch's choice, so that norms which compute statistics, whose training has
contiguous maps and amplifies every rounding, see the same numbers as in Detectron2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...precision import is_float32_inside
from ..recording import needs_plain_operators

__all__ = ["pointwise_conv"]

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_SMALL = 20480  # values of a single map up to which PyTorch takes kernels of its own in any case


def pointwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    groups: int = 1,
) -> Tensor:
    """Return `F.conv2d` of a map (Tensor[N, C, H, W]) with kernels of one pixel (Tensor[K, C / groups, 1, 1])."""
    dilation = 2 if x.is_cpu and _for_onednn(x, groups) else 1
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _for_onednn(x: Tensor, groups: int) -> bool:
    """Return whether PyTorch leaves dilated convolutions of a map to oneDNN, and does not record operators."""
    if needs_plain_operators() or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    large = len(x) > 1 or groups > 1 or x.numel() > _SMALL
    return large and is_float32_inside(x) and _HAS_ONEDNN
