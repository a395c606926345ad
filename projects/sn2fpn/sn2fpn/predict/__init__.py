"""Use a trained model: `python -m sn2fpn.predict` on the command line, and `Predictor` in a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    """Import `Predictor` on first use, so that `python -m sn2fpn.predict --help` does not wait for torch."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .predictor import Predictor

    return Predictor
