"""The metrics of a run, and the writers that put them on the console, into `metrics.json` and into TensorBoard."""

from __future__ import annotations

import datetime
import json
import logging
import math
import resource
import sys
from collections import defaultdict, deque
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

__all__ = ["ConsoleWriter", "JSONWriter", "MetricStorage", "TensorBoardWriter", "peak_memory_mib"]

logger = logging.getLogger(__name__)

_WINDOW = 20


class MetricStorage:
    """The latest values of each metric.

    Metrics of every iteration, such as losses, are smoothed over a window; rare ones, such as AP, are not.
    """

    def __init__(self) -> None:
        self._windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._rare: dict[str, float] = {}

    def put(self, values: dict[str, float]) -> None:
        """Add the metrics of an iteration."""
        for name, value in values.items():
            self._windows[name].append(value)

    def put_rare(self, values: dict[str, float]) -> None:
        """Add metrics that are measured now and then and that are written once."""
        self._rare.update(values)

    def smoothed(self) -> dict[str, float]:
        """Return the median of each metric over the last 20 iterations, but the last value of the learning rate."""
        return {name: window[-1] if name == "lr" else median(window) for name, window in self._windows.items()}

    def take_rare(self) -> dict[str, float]:
        """Return the rare metrics that have not been written yet."""
        rare, self._rare = self._rare, {}
        return rare

    def mean(self, name: str) -> float:
        """Return the mean of a metric over the last 20 iterations."""
        return fmean(self._windows[name]) if self._windows[name] else 0.0


class JSONWriter:
    """Appends a JSON object per line to a file: `{"iteration": …, "total_loss": …}`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        plain = {k: v if math.isfinite(v) else None for k, v in sorted(scalars.items())}  # JSON has no NaN
        self._file.write(json.dumps({"iteration": iteration, **plain}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """Writes TensorBoard's event files into the output folder."""

    def __init__(self, log_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(log_dir))

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._writer.close()


class ConsoleWriter:
    """Shows the progress: a line in the log now and then and, on a terminal, a live bar below."""

    def __init__(self, start_iter: int, max_iter: int, images_per_iter: int) -> None:
        self._max_iter = max_iter
        self._images = images_per_iter
        self._bar = self._open_bar(start_iter) if sys.stdout.isatty() else None

    def _open_bar(self, start_iter: int) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        bar = Progress(*columns, transient=True)
        bar.start()
        self._task = bar.add_task("", total=self._max_iter, completed=start_iter)
        return bar

    def tick(self, iteration: int, total_loss: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration + 1, description=f"loss {total_loss:.3f}")

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        losses = "  ".join(f"{k} {v:.4g}" for k, v in scalars.items() if "loss" in k and not k.startswith("val/"))
        seconds = scalars.get("time", 0.0)
        speed = f"{self._images / seconds:.1f} images/s" if seconds else ""
        eta = datetime.timedelta(seconds=int(scalars.get("eta_seconds", 0)))
        logger.info(
            "iter %d/%d  %s  lr %.3g  %s  ETA %s  memory %.0f MiB",
            iteration + 1,
            self._max_iter,
            losses,
            scalars.get("lr", 0.0),
            speed,
            eta,
            peak_memory_mib(),
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def peak_memory_mib() -> float:
    """Return the peak memory so far in MiB: allocated on the GPU, or resident if there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
