"""Tells whether a user has hooked or replaced a layer of a head, which a faster kernel must then not replace."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["has_hooks", "relu_of"]


def has_hooks(layer: nn.Module) -> bool:
    """Return whether a layer has hooks, which are called with the layer only."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or _has_backward_hooks(layer))


def relu_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ReLU of what a layer has returned: in place, unless a backward hook of the layer forbids it."""
    return F.relu(x) if _has_backward_hooks(layer) else F.relu_(x)


def _has_backward_hooks(layer: nn.Module) -> bool:
    return bool(layer._backward_hooks or layer._backward_pre_hooks)
