"""Use a trained model: `python -m sn2fpn.predict` on the command line, and `Predictor` in a program."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predictor import Predictor
    from .tiling import TiledPredictor

__all__ = ["Predictor", "TiledPredictor"]


def __getattr__(name: str) -> Any:
    """Import a class on first use, so that `python -m sn2fpn.predict --help` does not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{'tiling' if name == 'TiledPredictor' else 'predictor'}", __name__), name)
