"""Where the numbers of a run go: the console, `metrics.json`, TensorBoard."""

from __future__ import annotations

import datetime
import json
import logging
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
    """The latest scalars of each name.

    Scalars of every iteration (losses) are smoothed over a window when read; rare ones (AP) are not.
    """

    def __init__(self) -> None:
        self._windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._rare: dict[str, float] = {}

    def put(self, values: dict[str, float]) -> None:
        """Scalars of this iteration; smoothed by the median of the last 20."""
        for name, value in values.items():
            self._windows[name].append(value)

    def put_rare(self, values: dict[str, float]) -> None:
        """Scalars measured now and then; written once, unsmoothed."""
        self._rare.update(values)

    def smoothed(self) -> dict[str, float]:
        """The median over the window of each name; the learning rate as it is."""
        return {name: window[-1] if name == "lr" else median(window) for name, window in self._windows.items()}

    def take_rare(self) -> dict[str, float]:
        rare, self._rare = self._rare, {}
        return rare

    def mean(self, name: str) -> float:
        return fmean(self._windows[name]) if self._windows[name] else 0.0


class JSONWriter:
    """Appends one JSON object a line: `{"iteration": …, "total_loss": …}`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        # JSON has no NaN: a metric without a value is null
        plain = {k: (v if v == v and abs(v) != float("inf") else None) for k, v in sorted(scalars.items())}
        self._file.write(json.dumps({"iteration": iteration, **plain}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """Event files in OUTPUT_DIR."""

    def __init__(self, log_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(log_dir))

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._writer.close()


class ConsoleWriter:
    """Progress: a line in the log now and then, and on a terminal a live bar below it."""

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
    """Peak memory so far: allocated on the GPU, or resident for a CPU process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
