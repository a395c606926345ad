"""Seeing misalignment: feature maps before and after fusion, drawn and measured (docs/features.md).

Names load on first use, so that `--help` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "add_arguments": "command",
    "main": "command",
    "measure_study": "cells",
    "examine": "examine",
    "respond": "response",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
