"""Load the weights that a trained model is evaluated or predicts with."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ArgumentError
from .checkpointer import Checkpointer
from .matching import MatchReport

__all__ = ["load_trained"]


def load_trained(model: nn.Module, path: str, average: bool = False) -> MatchReport | None:
    """Load the weights of a checkpoint into a model and log what matched.

    Args:
        model: the model.
        path: a file or URL; with "" nothing is loaded.
        average: whether to take the moving average of the weights, which training keeps beside them.

    Returns:
        What matched and the names of the classes, or None without a path.

    Raises:
        ArgumentError: see `Checkpointer.load`; or the file holds no average.
    """
    checkpointer = Checkpointer(model)
    rest = checkpointer.load(path)
    if average and path:
        if "ema" not in rest:
            raise ArgumentError("average", f"{path} holds no averaged weights; set it to False")
        model.load_state_dict(rest["ema"])
    if checkpointer.report is not None:
        checkpointer.report.class_names = _class_names(rest.get("class_names"))
    return checkpointer.report


def _class_names(found: Any) -> list[str]:
    """Return the class names of a file in one line each, or [] if there are none that could be used."""
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        return []
    return ["".join(c if c.isprintable() else " " for c in name) for name in found]
