"""A linear layer of flattened maps, where it pays as a convolution whose kernel covers the map.

`BoxHead` takes this kernel on a CPU. With AVX-512, the convolution reads channels-last maps as they are, and oneDNN's
kernels are up to twice as fast as the matrix product of the BLAS on AMD processors. With AVX2, oneDNN has no fast
kernel for such a convolution, which takes 4 to 15 times as long as the matrix product there. Tracing and compilation
keep the matrix product, because their graphs may run on another machine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recording import needs_plain_operators

__all__ = ["linear_of_maps"]

_AVX512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def linear_of_maps(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `F.linear(x.flatten(1), weight, bias)` (Tensor[K, D]) for maps x (Tensor[K, C, P, P])."""
    if _AVX512 and not needs_plain_operators():
        return F.conv2d(x, weight.view(-1, *x.shape[1:]), bias).flatten(1)
    return F.linear(x.flatten(1), weight, bias)
