"""Mixed precision: a context in which a model computes in half precision where that is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

__all__ = ["autocast", "no_grad_between"]


def autocast(device: str | torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return torch's autocast context for a device, or one that does nothing.

    Args:
        device: the model's device.
        dtype: `torch.float16`, `torch.bfloat16`, or None for single precision.
    """
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype)


@contextmanager
def no_grad_between() -> Iterator[None]:
    """Compute without gradients inside of a step that needs gradients of the same weights later.

    autocast keeps the weights that it converts. In older versions of torch, such as 2.6, it also keeps those that it
    converts without gradients, and the later computation would then give these weights no gradients.
    """
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
