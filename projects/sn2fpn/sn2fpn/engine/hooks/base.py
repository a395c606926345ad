"""What a hook is, and what it knows of the trainer."""

from __future__ import annotations

from typing import Any, Protocol

from ..interrupts import Interrupts
from ..writers import MetricStorage

__all__ = ["Hook", "Run"]


class Run(Protocol):
    """What hooks know of the trainer.

    Attributes:
        start_iter: the first iteration, counted from 0.
        iter: the present iteration; before the training starts, the last one of the checkpoint that is resumed, or -1.
        max_iter: the number of iterations.
        epoch_images: the number of images that an epoch shows, or 0 if it is not known.
        storage: the latest metrics, up to the last call of `read_metrics`; on a CPU, each step calls it.
        results: the results of the last evaluation, on the main process.
        interrupts: the requests to stop.
    """

    start_iter: int
    iter: int
    max_iter: int
    epoch_images: int
    storage: MetricStorage
    results: dict[str, Any]
    interrupts: Interrupts

    def save(self, name: str, remember: bool = True, **extra: Any) -> None:
        """Write the checkpoint `<name>.pth`, from which `--resume` continues if `remember` is True."""

    def read_metrics(self) -> None:
        """Bring `storage` up to date, and raise a UserError if a loss is not finite."""

    def stop(self, reason: str) -> None:
        """End the training after this iteration."""


class Hook:
    """Something that is done around the steps of the training.

    Attributes:
        trainer: the trainer, which is set before the training starts.
        checkpoint_key: the name under which a checkpoint holds the hook's `state_dict()`; "" if it holds none.
    """

    trainer: Run
    checkpoint_key = ""

    def before_train(self) -> None:
        """Called once, after the weights were loaded."""

    def after_step(self) -> None:
        """Called after the optimizer and the schedule made their step in the iteration `trainer.iter`."""

    def after_train(self) -> None:
        """Called once, when the training ended by itself, after the last iteration or by an early stop."""

    def close(self) -> None:
        """Called at the end in any case, also after an error."""
