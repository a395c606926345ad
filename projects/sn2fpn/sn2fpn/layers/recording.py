"""Whether a tool looks at the operators of a layer, which then has to consist of PyTorch's own."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

__all__ = ["needs_plain_operators"]


def needs_plain_operators() -> bool:
    """Return whether operators are compiled, traced, or transformed.

    A compiler and an exporter know PyTorch's operators only, and so do the transforms of `torch.func` (grad, vmap, jvp)
    and forward-mode differentiation.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
