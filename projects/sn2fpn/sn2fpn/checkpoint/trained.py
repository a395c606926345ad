"""Load the weights that a trained model is evaluated or predicts with."""

from __future__ import annotations

from torch import nn

from ..errors import ArgumentError
from .checkpointer import Checkpointer
from .matching import MatchReport

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
        What matched, or None without a path.

    Raises:
        ArgumentError: see `Checkpointer.load`; the file holds no average.
    """
    checkpointer = Checkpointer(model)
    rest = checkpointer.load(path, complete=complete, advice=_ADVICE)
    if average and path:
        if "ema" not in rest:
            raise ArgumentError("average", f"{path} holds no averaged weights; set it to False")
        model.load_state_dict(rest["ema"])
    return checkpointer.report
