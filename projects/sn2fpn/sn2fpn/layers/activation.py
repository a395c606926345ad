"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError, did_you_mean

__all__ = ["Activation", "get_activation"]

Activation = str | Callable[[Tensor], Tensor] | None
"""How an activation is asked for: a name of `get_activation`, or a callable on tensors; "" or None: none."""

# ReLU's gradient needs only its output, so it may overwrite the map it is given; SiLU's needs its input.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu_, "silu": F.silu, "gelu": F.gelu}


def get_activation(act: Activation) -> Callable[[Tensor], Tensor] | None:
    """The function called `act` ("relu", "silu", "gelu": exact erf form); None for "" or None.

    "relu" works in place: it is for a map that nobody else reads, such as the output of a conv or a norm.

    Raises:
        UserError: unknown name.
    """
    if not act:
        return None
    if not isinstance(act, str):
        return act
    if act not in _ACTIVATIONS:
        raise UserError(f"unknown activation {act!r}{did_you_mean(act, [*_ACTIVATIONS, ''])}")
    return _ACTIVATIONS[act]
