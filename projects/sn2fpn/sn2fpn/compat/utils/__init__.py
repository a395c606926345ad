"""Detectron2's `utils`: the log, drawing, metrics and the exchange between processes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..absent import absent

__all__ = ["comm", "env", "events", "logger", "visualizer"]

_absent = absent(__name__, __all__)


def __getattr__(name: str) -> Any:
    """Import a module when it is first used."""
    return import_module(f".{name}", __name__) if name in __all__ else _absent(name)
