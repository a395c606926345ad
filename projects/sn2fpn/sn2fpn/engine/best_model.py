"""Which evaluation of a run was the best one, by one metric."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..atomic import atomic_write
from ..errors import check_choice

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
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["metric"] == metric:
                self.history = [(i, v) for i, v in stored["history"] if i < start_iter]

    def update(self, iteration: int, scalars: dict[str, float]) -> bool:
        """Add an evaluation to the history and return whether it is the best one so far.

        An evaluation at the same iteration is replaced, since a resumed run may repeat it.

        Raises:
            ArgumentError: the evaluation does not give the metric.
        """
        value = scalars[check_choice("metric", self.metric, scalars)]
        self.history = [(i, v) for i, v in self.history if i < iteration]
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
