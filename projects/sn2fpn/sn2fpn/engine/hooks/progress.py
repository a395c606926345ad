"""The metrics of a run, shown and written."""

from __future__ import annotations

from pathlib import Path

from ..writers import METRICS, ConsoleWriter, JSONWriter, TensorBoardWriter, lacks_row, peak_memory_mib
from .base import Hook

__all__ = ["Progress"]


class Progress(Hook):
    """Writes metrics to the console, `metrics.json` and TensorBoard every `period` iterations, in the main process.

    Args:
        output_dir: the folder of the files.
        images_per_iter: images per iteration, for the speed.
        period: iterations between two lines.
    """

    def __init__(self, output_dir: Path, images_per_iter: int, period: int = 20) -> None:
        self._dir = output_dir
        self._images = images_per_iter
        self._period = period
        self._console: ConsoleWriter | None = None
        self._rows: JSONWriter | None = None
        self._events: TensorBoardWriter | None = None

    def before_train(self) -> None:
        t = self.trainer
        self._console = ConsoleWriter(t.start_iter, t.max_iter, self._images)
        missing = t.start_iter > 0 and lacks_row(self._dir / METRICS, t.iter)
        self._rows = JSONWriter(self._dir / METRICS, t.start_iter)
        self._events = TensorBoardWriter(self._dir, t.start_iter)
        if missing:  # the run ended between the checkpoint and this row
            self._write(self._smoothed() if self._is_due() else {})

    def after_step(self) -> None:
        t = self.trainer
        smoothed = self._smoothed()
        self._console.tick(t.iter, smoothed.get("total_loss", 0.0))
        due = self._is_due()
        if due or t.iter == t.start_iter:
            self._console.write(t.iter, smoothed)
        self._write(smoothed if due else {})

    def after_train(self) -> None:
        self._write({})

    def _is_due(self) -> bool:
        done = self.trainer.iter + 1
        return done % self._period == 0 or done in (1, self.trainer.max_iter)

    def _smoothed(self) -> dict[str, float]:
        t = self.trainer
        remaining = t.storage.mean("time") * (t.max_iter - t.iter - 1)
        return t.storage.smoothed() | {"eta_seconds": remaining, "peak_memory_mib": peak_memory_mib()}

    def _write(self, scalars: dict[str, float]) -> None:
        if self.trainer.interrupts.stopped:  # in an evaluation: --resume repeats it and then writes the row as a whole
            return
        scalars = scalars | self.trainer.storage.take_rare()
        if scalars:
            self._rows.write(self.trainer.iter, scalars)
            self._events.write(self.trainer.iter, scalars)

    def close(self) -> None:
        if self._console is not None:
            self._console.close()
        if self._events is not None:
            self._events.close()
