"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError, check_choice

__all__ = ["Activation", "get_activation"]

Activation = str | Callable[[Tensor], Tensor] | None
"""How callers ask for an activation: a name of `get_activation`, a callable on tensors, or "" or None for none."""

# ReLU's gradient needs only the output, so it may overwrite its input. SiLU's and GELU's gradients need the input.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu_, "silu": F.silu, "gelu": F.gelu}


def get_activation(activation: Activation) -> Callable[[Tensor], Tensor] | None:
    """Return the activation function, or None for no activation.

    Args:
        activation: "relu", "silu", "gelu" (the exact form with erf), a callable, or "" or None for none. "relu" works
            in place, so it is meant for a map that nothing else reads, such as the output of a convolution or a norm.

    Raises:
        ArgumentError: the name is unknown, or it is neither a name nor a callable.
    """
    if not activation:
        return None
    if callable(activation):
        return activation
    if not isinstance(activation, str):
        raise ArgumentError("activation", f"expected a name such as 'relu', or a callable, found {activation!r}")
    return _ACTIVATIONS[check_choice("activation", activation, [*_ACTIVATIONS, ""])]
