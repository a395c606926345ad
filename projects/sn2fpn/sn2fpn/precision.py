"""Mixed precision: a context in which a model computes in half precision where that is safe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast"]


def autocast(device: str | torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return torch's autocast context for a device, or one that does nothing.

    Args:
        device: the model's device.
        dtype: `torch.float16`, `torch.bfloat16`, or None for single precision.
    """
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype)
