"""What happens around the steps of a run: a moving average, checkpoints, evaluation and progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ... import distributed as comm
from ..options import RunOptions
from ..testing import TestSet
from .base import Hook, Run
from .evaluation import Evaluation
from .progress import Progress
from .weights import EMA, Checkpoints

__all__ = ["EMA", "Checkpoints", "Evaluation", "Hook", "Progress", "Run", "default_hooks"]


def default_hooks(
    options: RunOptions,
    test_sets: Sequence[TestSet],
    model: nn.Module,
    augmented: nn.Module | None = None,
    metrics: Sequence[str] | None = None,
) -> list[Hook]:
    """Return the hooks of a run in the order in which they act; the evaluation follows the checkpoint.

    See `Evaluation` for the arguments.
    """
    ema = EMA(model, options.ema_decay) if options.ema else None
    hooks: list[Hook] = [ema] if ema else []
    hooks += [Checkpoints(options.checkpoint_period), Evaluation(options, test_sets, model, ema, augmented, metrics)]
    if comm.is_main_process():
        out, images = Path(options.output_dir), options.images_per_batch
        hooks.append(Progress(out, images, options.log_period, options.services))
    return hooks
