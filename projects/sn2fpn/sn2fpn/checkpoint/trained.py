"""Load the weights that a trained model is evaluated or predicts with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import ArgumentError, argument_names
from .checkpointer import Checkpointer
from .matching import MatchReport, check_finite

__all__ = ["load_trained"]

_ADVICE = "Name a checkpoint of this model, or add --allow-partial to go on with random values for the missing weights"


def load_trained(model: nn.Module, path: str, average: bool = False, complete: bool = False) -> MatchReport | None:
    """Load the weights of a checkpoint into a model and log what matched.

    Args:
        model: the model.
        path: a file or URL; with "" nothing is loaded.
        average: whether to take the moving average of the weights, which training keeps beside them.
        complete: whether every tensor of the model must come from the file.

    Returns:
        What matched and the names of the classes, or None without a path.

    Raises:
        ArgumentError: see `Checkpointer.load`; or the file holds no average, or one with NaN or infinite values.
    """
    checkpointer = Checkpointer(model)
    rest = checkpointer.load(path, complete=complete, advice=_ADVICE)
    if average and path:
        _load_average(model, rest, path)
    if checkpointer.report is not None:
        checkpointer.report.class_names = _class_names(rest.get("class_names"))
        config = rest.get("config")
        checkpointer.report.config = config if isinstance(config, str) else ""
    return checkpointer.report


def _class_names(found: Any) -> list[str]:
    """Return the class names of a file, or [] if there are none that could be used."""
    return list(found) if isinstance(found, list | tuple) and all(isinstance(name, str) for name in found) else []


def _load_average(model: nn.Module, rest: dict[str, Any], path: str) -> None:
    if "ema" not in rest:
        raise ArgumentError("average", f"{path} holds no averaged weights; set it to False")
    state = rest["ema"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ArgumentError("path", f"{path}: expected named tensors as averaged weights")
    with argument_names({"checkpoint": "path"}):
        check_finite(state, path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ArgumentError("path", f"{path}: the averaged weights do not fit the model: {error}") from error
