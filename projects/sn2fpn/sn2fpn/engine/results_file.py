"""`results.csv`, the table of the evaluations of a run, and the clock that tells when they were."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from .writers import keep_earlier

__all__ = ["RESULTS", "Clock", "ResultsWriter"]

RESULTS = "results.csv"
"""The name of the file with the evaluations of a run, in its output folder."""

_FIRST = ("iteration", "epoch", "seconds")


class Clock:
    """The wall time of a run in seconds, which is a part of its checkpoints and goes on when the run is resumed."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds since the run began, without the time between its parts."""
        return self._before + time.monotonic() - self._started

    def state_dict(self) -> float:
        return self.seconds

    def load_state_dict(self, state: float) -> None:
        self._before, self._started = float(state), time.monotonic()

    def forward_to(self, seconds: float) -> None:
        """Set the clock forward to a time that a row has, which was written after the checkpoint that is resumed."""
        if self.seconds < seconds:
            self.load_state_dict(seconds)


class ResultsWriter:
    """Writes a row for each evaluation: its iteration, epoch and second, and every metric.

    The file is written as a whole and atomically each time, since later evaluations may have further metrics. A second
    write for an iteration, such as that of an evaluation which a resumed run repeats, changes the row of the first.

    Args:
        path: the file.
        start_iter: the first iteration of this run. Rows of an earlier run that start here or later are removed,
            because this run writes them again. If this is 0, an earlier file is kept as `<name>.1` and so on.
    """

    def __init__(self, path: Path, start_iter: int = 0) -> None:
        self._path = path
        self._rows = {n: row for n, row in _read(path).items() if n < start_iter}
        if start_iter == 0:
            keep_earlier(path)
        elif path.is_file():
            self._save()

    @property
    def seconds(self) -> float:
        """The seconds of the last row, or 0 before the first one."""
        last = max(self._rows, default=None)
        return 0.0 if last is None else float(self._rows[last]["seconds"])

    def write(self, iteration: int, epoch: float | None, seconds: float, metrics: dict[str, float]) -> None:
        """Add an evaluation.

        Args:
            iteration: the iteration after which the model was evaluated, counted from 0 as in `metrics.json`.
            epoch: how often the training has seen each image by then; None if it is not known.
            seconds: the wall time of the run by then.
            metrics: the results by their names, such as "bbox/AP".
        """
        when = {"iteration": iteration, "epoch": "" if epoch is None else round(epoch, 4), "seconds": round(seconds, 1)}
        self._rows[iteration] = self._rows.get(iteration, {}) | when | metrics
        self._save()

    def _save(self) -> None:
        columns = dict.fromkeys([*_FIRST, *(name for row in self._rows.values() for name in row)])
        with atomic_write(self._path) as file:
            table = csv.DictWriter(file, list(columns), lineterminator="\n")
            table.writeheader()
            table.writerows(row for _, row in sorted(self._rows.items()))


def _is_time(row: dict[str, Any]) -> bool:
    """Return whether the seconds of a row are a number that a clock can show."""
    try:
        return 0 <= float(row.get("seconds") or "nan") < float("inf")
    except ValueError:
        return False


def _read(path: Path) -> dict[int, dict[str, Any]]:
    """Return the rows of a file by their iterations; what is no row of this table is left out."""
    rows: dict[int, dict[str, Any]] = {}
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):
                if (iteration := row.get("iteration") or "").isdecimal() and None not in row and _is_time(row):
                    rows[int(iteration)] = {name: value for name, value in row.items() if value}
    except (FileNotFoundError, csv.Error):
        pass
    return rows
