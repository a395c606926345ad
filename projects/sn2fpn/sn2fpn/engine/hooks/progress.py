"""The metrics of a run, shown and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..remote import Remote
from ..results_file import RESULTS, Clock, ResultsWriter
from ..writers import METRICS, ConsoleWriter, JSONWriter, TensorBoardWriter, lacks_row, peak_memory_mib
from .base import Hook

__all__ = ["Progress"]


class Progress(Hook):
    """Writes metrics to the console, `metrics.json` and TensorBoard every `period` iterations, in the main process.

    Evaluations are also written to `results.csv`. The wall time of the run is a part of its checkpoints.

    Args:
        output_dir: the folder of the files.
        images_per_iter: images per iteration, for the speed; 0 if they are not known.
        period: iterations between two lines.
        services: the services that metrics are sent to as well, see `Remote`.
    """

    checkpoint_key = "clock"

    def __init__(self, output_dir: Path, images_per_iter: int, period: int = 20, services: Sequence[str] = ()) -> None:
        self._dir = output_dir
        self._images = images_per_iter
        self._period = period
        self._services = services
        self._clock = Clock()
        self._console: ConsoleWriter | None = None
        self._rows: JSONWriter | None = None
        self._results: ResultsWriter | None = None
        self._others: list[TensorBoardWriter | Remote] = []
        self._complete = False

    def state_dict(self) -> float:
        return self._clock.state_dict()

    def load_state_dict(self, state: float) -> None:
        self._clock.load_state_dict(state)

    def before_train(self) -> None:
        t = self.trainer
        self._console = ConsoleWriter(t.start_iter, t.max_iter, self._images)
        missing = t.start_iter > 0 and lacks_row(self._dir / METRICS, t.iter)
        self._rows = JSONWriter(self._dir / METRICS, t.start_iter)
        self._results = ResultsWriter(self._dir / RESULTS, t.start_iter)
        self._clock.forward_to(self._results.seconds)
        self._others = [TensorBoardWriter(self._dir, t.start_iter)]
        self._others += [Remote(name, self._dir, resumed=t.start_iter > 0) for name in self._services]
        if missing:  # the run ended between the checkpoint and this row
            self._write(self._smoothed() if self._is_due() else {})

    def after_step(self) -> None:
        t, due = self.trainer, self._is_due()
        scalars = self._smoothed() | (t.storage.take_added() if due else {})
        self._console.tick(t.iter, scalars.get("total_loss", 0.0))
        if due or t.iter == t.start_iter:
            self._console.write(t.iter, scalars)
        self._write(scalars if due else {})

    def after_train(self) -> None:
        self._write(self.trainer.storage.take_added())
        self._complete = not self.trainer.interrupts.stopped

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
        t, found = self.trainer, self.trainer.storage.take_rare()
        if found:  # before metrics.json, whose row tells a resumed run that the evaluation is written
            epoch = (t.iter + 1) * self._images / t.epoch_images if t.epoch_images and self._images else None
            self._results.write(t.iter, epoch, self._clock.seconds, found)
        if scalars := scalars | found:
            self._rows.write(t.iter, scalars)
            for writer in self._others:
                writer.write(t.iter, scalars)

    def close(self) -> None:
        if self._console is not None:
            self._console.close()
        for writer in self._others:
            writer.close(self._complete)
