"""Write checkpoint files, which are complete or not there and hold only tensors and plain types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_write
from ..errors import UserError

__all__ = ["atomic_save"]


def atomic_save(data: Any, path: str | Path) -> None:
    """Save tensors and plain types with `torch.save`, completely or not at all.

    Scalars of numpy become Python's and its arrays become tensors, so that the file loads with `weights_only=True`.

    Raises:
        UserError: the file cannot be written. An older file of this name is intact.
        TypeError: `data` holds another type, which is a bug in the caller.
    """
    plain = _plain(data, "")
    try:
        with atomic_write(path, "wb") as file:
            torch.save(plain, file)
    except RuntimeError as error:  # from torch's writer, and no error of the operating system is behind it
        reason = str(error).split("\n")[0]
        raise UserError(f"cannot write {path}: {reason}. An older file of this name is intact") from error


def _plain(value: Any, where: str) -> Any:
    """Return `value` with numpy's types replaced; `where` is its place in the data, for messages."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        return kind(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    found = type(value).__name__
    raise TypeError(f"a checkpoint holds only tensors and plain types, found {found} at {where[1:]}")
