"""Which evaluation of a run was the best one, by one metric."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..atomic import atomic_write
from ..errors import UserError, check_choice

__all__ = ["BestModel"]


class BestModel:
    """The history of one metric, which tells the best evaluation and how many followed it.

    The history is kept in `best_metric.json`, so that it is known when a run is resumed. The lowest value is the best
    one if the metric is a loss, otherwise the highest one; NaN counts as the worst value.

    Args:
        metric: the metric, for example "bbox/AP50".
        output_dir: the folder of the history.
        start_iter: the first iteration of this run; later entries of the stored history are dropped.
    """

    def __init__(self, metric: str, output_dir: Path, start_iter: int) -> None:
        self.metric = metric
        self._path = output_dir / "best_metric.json"
        self.history: list[tuple[int, float]] = []
        if start_iter and self._path.is_file():
            stored, history = _read(self._path)
            if stored == metric:
                self.history = [entry for entry in history if entry[0] < start_iter]

    def update(self, iteration: int, scalars: dict[str, float]) -> bool:
        """Add an evaluation to the history and return whether it is the best one so far.

        An evaluation that is made up for, because the run was killed in it, replaces its own entry and later ones.

        Raises:
            ArgumentError: the evaluation does not give the metric.
        """
        value = scalars[check_choice("metric", self.metric, scalars)]
        self.history = [entry for entry in self.history if entry[0] < iteration]
        improved = not math.isnan(value) and (not self.history or self._score(value) > self._score(self.best[1]))
        self.history.append((iteration, value))
        with atomic_write(self._path) as f:
            json.dump({"metric": self.metric, "history": self.history}, f)
        return improved

    def _score(self, value: float) -> float:
        return -math.inf if math.isnan(value) else -value if "loss" in self.metric else value

    @property
    def best(self) -> tuple[int, float]:
        """The iteration and the value of the best evaluation."""
        return max(self.history, key=lambda entry: self._score(entry[1]))

    @property
    def evaluations_since(self) -> int:
        """The number of evaluations after the best one."""
        return len(self.history) - 1 - self.history.index(self.best)


def _read(path: Path) -> tuple[str, list[tuple[int, float]]]:
    """Return the metric of a stored history and the history."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return str(stored["metric"]), [(int(iteration), float(value)) for iteration, value in stored["history"]]
    except (OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as e:
        raise UserError(
            f"{path}: the history of the best metric cannot be read ({e!r}); without this file, the history starts anew"
        ) from e
