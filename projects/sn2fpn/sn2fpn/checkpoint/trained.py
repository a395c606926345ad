"""The weights that a trained model is used with: for evaluation and prediction."""

from __future__ import annotations

from torch import nn

from ..errors import UserError
from .checkpointer import Checkpointer
from .matching import MatchReport

__all__ = ["load_trained"]


def load_trained(
    model: nn.Module,
    path: str,
    average: bool = False,
    where: str = "MODEL.WEIGHTS",
    average_key: str = "SOLVER.EMA.ENABLED",
) -> MatchReport | None:
    """Load a checkpoint's weights into a model, and log what matched.

    Args:
        path: file or URL; "" loads nothing.
        average: take the moving average of the weights that the training kept beside them.
        where, average_key: the keys or flags that name the file and ask for the average, for messages.

    Returns:
        What matched; None for no path.

    Raises:
        UserError: see `Checkpointer.load`; or there is no average in the file.
    """
    checkpointer = Checkpointer(model)
    rest = checkpointer.load(path, where=where)
    if average and path:
        if "ema" not in rest:
            raise UserError(f"{average_key}: {path} holds no averaged weights; set it to False")
        model.load_state_dict(rest["ema"])
    return checkpointer.report
