"""The metrics of a run, and the writers that put them on the console, into `metrics.json` and into TensorBoard."""

from __future__ import annotations

import datetime
import itertools
import json
import logging
import math
import os
import resource
import socket
import sys
import time
from collections import defaultdict, deque
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from ..atomic import atomic_write, storage_errors

__all__ = [
    "METRICS",
    "WINDOW",
    "ConsoleWriter",
    "JSONWriter",
    "MetricStorage",
    "TensorBoardWriter",
    "cut_rows",
    "keep_earlier",
    "lacks_row",
    "peak_memory_mib",
]

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
"""The name of the file with the metrics of a run, in its output folder."""

WINDOW = 20
"""The number of iterations over which metrics are smoothed."""

_numbers = itertools.count()


class MetricStorage:
    """The latest values of each metric, which are a part of a checkpoint.

    Metrics of every iteration, such as losses, are smoothed over a window; rare ones, such as AP, are not.
    """

    def __init__(self) -> None:
        self._windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._rare: dict[str, float] = {}

    def put(self, values: dict[str, float], iteration: int) -> None:
        """Add the metrics of an iteration, which may be an earlier one than the present."""
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

    def take_added(self) -> dict[str, float]:
        """Return what a script has added for the next row of `metrics.json`; a storage for scripts overrides this."""
        return {}

    def mean(self, name: str) -> float:
        """Return the mean of a metric over the last 20 iterations."""
        return fmean(self._windows[name]) if self._windows[name] else 0.0

    def state_dict(self) -> dict[str, list[float]]:
        """Return the windows, so that the smoothed values of a resumed run go on."""
        return {name: list(window) for name, window in self._windows.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        for name, values in state.items():
            self._windows[name] = deque(values, maxlen=WINDOW)


class JSONWriter:
    """Writes a JSON object per line, `{"iteration": …, "total_loss": …}`, with rising iterations.

    Args:
        path: the file.
        start_iter: the first iteration of this run. Rows of an earlier run that start here or later are removed,
            because this run writes them again. If this is 0, an earlier file is kept as `<name>.1` and so on.
    """

    def __init__(self, path: Path, start_iter: int = 0) -> None:
        self._path = path
        rows = cut_rows(path, start_iter)
        self._last: dict[str, Any] = rows[-1] if rows else {"iteration": -1}

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        """Add a row, or add the scalars to the last row if it is of the same iteration."""
        plain = {k: v if math.isfinite(v) else None for k, v in scalars.items()}  # JSON has no NaN
        if iteration == self._last["iteration"]:
            self._last |= plain
            _write_rows(self._path, [*_rows(self._path)[:-1], self._last])
            return
        self._last = {"iteration": iteration, **plain}
        with storage_errors(self._path), self._path.open("ab", buffering=0) as file:
            file.write(_line(self._last).encode())


def cut_rows(path: Path, start_iter: int) -> list[dict[str, Any]]:
    """Remove the rows of iterations from `start_iter` on from a file of metrics, and return the others.

    If `start_iter` is 0, a file with rows is kept as `<name>.1` and so on, and a new one is made.
    """
    rows = _rows(path)
    if rows and start_iter == 0:
        keep_earlier(path)
    rows = [row for row in rows if row["iteration"] < start_iter]
    _write_rows(path, rows)
    return rows


def keep_earlier(path: Path) -> None:
    """Give a file of an earlier run, if there is one, the name `<name>.1` or the next one that is free."""
    if path.is_file():
        path.rename(next(free for n in range(1, 10**6) if not (free := Path(f"{path}.{n}")).exists()))


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_write(path) as file:
        file.writelines(map(_line, rows))


def lacks_row(path: Path, iteration: int) -> bool:
    """Return whether a run was killed between the checkpoint of an iteration and the row of this iteration."""
    return path.is_file() and all(row["iteration"] != iteration for row in _rows(path))


def _line(row: dict[str, Any]) -> str:
    return json.dumps({"iteration": row["iteration"], **dict(sorted(row.items()))}) + "\n"


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a file; a killed run may leave half a row at the end."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            rows.append(row)
    return rows


class TensorBoardWriter:
    """Writes one of TensorBoard's event files.

    torch's own `SummaryWriter` writes in a thread, in which a full disk ends with a traceback and no error.

    Args:
        log_dir: the folder of the file.
        start_iter: the first iteration of this run. TensorBoard hides what earlier files say from here on.
    """

    def __init__(self, log_dir: Path, start_iter: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, me = time.time(), f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = log_dir / f"events.out.tfevents.{now:010.0f}.{me}"
        with storage_errors(self._path):
            self._file = self._path.open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=now, file_version="brain.Event:2"))
        if start_iter:
            self._add(Event(wall_time=now, step=start_iter, session_log=SessionLog(status=SessionLog.START)))

    def write(self, iteration: int, scalars: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import scalar

        for name, value in scalars.items():
            self._add(Event(wall_time=time.time(), step=iteration, summary=scalar(name, value)))

    def _add(self, event: Any) -> None:
        with storage_errors(self._path):
            self._records.write(event.SerializeToString())

    def close(self, complete: bool = True) -> None:
        self._file.close()


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
        speed = f"{self._images / seconds:.1f} images/s" if seconds and self._images else ""
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
    """Return the peak memory so far in MiB: allocated on the GPU, or resident if nothing was allocated there."""
    if torch.cuda.is_initialized() and (allocated := torch.cuda.max_memory_allocated()):
        return allocated / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
