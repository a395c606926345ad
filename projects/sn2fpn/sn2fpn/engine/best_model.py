"""Which evaluation of a run was the best one, by one metric."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path

from ..atomic import atomic_write
from ..errors import UserError, argument_names, check_choice, counted, did_you_mean
from ..evaluation import TASKS, COCOEvaluator, PascalVOCEvaluator
from .options import RunOptions

__all__ = ["BestModel", "follow_best", "missing"]

logger = logging.getLogger(__name__)
_USUAL = {f"{task}/{score}" for task in TASKS for kind in (COCOEvaluator, PascalVOCEvaluator) for score in kind.SCORES}


def missing(metric: str, given: Iterable[str]) -> str:
    """Return "" if evaluations give a metric, and otherwise what follows from it, as the end of a sentence.

    A shipped configuration names the best metric for the usual case, from which a run may differ, for instance by
    several test sets.

    Raises:
        ArgumentError: no run gives a metric of this name.
    """
    given = list(given)
    if metric not in _USUAL:
        check_choice("metric", metric, given)
    if metric in given:
        return ""
    return f"the evaluations of this run do not give it, and model_best.pth is not kept{did_you_mean(metric, given)}"


def follow_best(o: RunOptions, given: Iterable[str] | None, has_test: bool, start_iter: int) -> BestModel | None:
    """Log when a run is evaluated and by which metric its best model is kept.

    Args:
        o: the options of the run.
        given: the names of the metrics of its evaluations, or None if they are not known.
        has_test: whether the configuration names data sets to evaluate on.
        start_iter: the first iteration of the run.

    Returns:
        The history of the metric, or None if no best model is kept.

    Raises:
        ArgumentError: no run gives a metric of this name.
    """
    if not has_test:
        if o.best_metric:
            logger.warning("%s is empty: nothing is evaluated, and model_best.pth is not kept", o.key("test_sets"))
        return None
    with argument_names({"metric": o.key("best_metric")}):
        lacking = missing(o.best_metric, given) if o.best_metric and given is not None else ""
    period = f"every {counted(o.eval_period, 'iteration')} and " if 0 < o.eval_period < o.max_iter else ""
    kept = f"; model_best.pth is kept by {o.best_metric}" if o.best_metric and not lacking else ""
    logger.info("The model is evaluated %sat the end%s", period, kept)
    if lacking:
        logger.warning("%s %s: %s", o.key("best_metric"), o.best_metric, lacking)
    return BestModel(o.best_metric, Path(o.output_dir), start_iter) if kept else None


class BestModel:
    """The history of one metric, which tells the best evaluation and how many followed it.

    The history is kept in `best_metric.json`, so that it is known when a run is resumed. The lowest value is the best
    one if the metric is a loss, by the last part of its name, otherwise the highest one; NaN counts as the worst value.

    Args:
        metric: the metric, for example "bbox/AP50".
        output_dir: the folder of the history.
        start_iter: the first iteration of this run. Later entries of the stored history are dropped but for the best
            one, because `model_best.pth` holds its model.
    """

    def __init__(self, metric: str, output_dir: Path, start_iter: int) -> None:
        self.metric = metric
        self._path = output_dir / "best_metric.json"
        self._start_iter = start_iter
        self._warned = False
        self.history: list[tuple[int, float]] = []
        if start_iter and self._path.is_file():
            stored, history = _read(self._path)
            if stored == metric:
                self.history = history
                held = None if math.isnan(self.best[1]) else self.best
                self.history = [entry for entry in history if entry[0] < start_iter or entry == held]

    def update(self, iteration: int, scalars: dict[str, float]) -> bool:
        """Add an evaluation to the history and return whether it is the best one so far.

        An evaluation that is made up for, because the run was killed in it, replaces its own entry. One that equals the
        best one of the same iteration before a crash counts as the best one again, since the run may have been killed
        before it saved the model. An evaluation that does not give the metric is passed over with a warning.

        Raises:
            ArgumentError: the evaluation does not give the metric, and neither does any other; see `missing`.
        """
        if lacking := missing(self.metric, scalars):
            if not self._warned:
                logger.warning("%s: %s", self.metric, lacking)
            self._warned = True
            return False
        value = scalars[self.metric]
        held = self.best if iteration >= self._start_iter else None
        self.history = [entry for entry in self.history if entry[0] != iteration or entry == held]
        again = (iteration, value) == self.best
        improved = not math.isnan(value) and (again or self._score(value) > self._score(self.best[1]))
        self.history += [] if again else [(iteration, value)]
        self.history.sort(key=lambda entry: entry[0])
        history = [(n, None if math.isnan(score) else score) for n, score in self.history]  # JSON has no NaN
        with atomic_write(self._path) as f:
            json.dump({"metric": self.metric, "history": history}, f)
        return improved

    def _score(self, value: float) -> float:
        return -math.inf if math.isnan(value) else -value if "loss" in self.metric.rpartition("/")[2] else value

    @property
    def best(self) -> tuple[int, float]:
        """The iteration and the value of the best evaluation; -1 and NaN before the first one."""
        return max(self.history, key=lambda entry: self._score(entry[1]), default=(-1, math.nan))

    @property
    def evaluations_since(self) -> int:
        """The number of evaluations after the best one."""
        return sum(iteration > self.best[0] for iteration, _ in self.history)


def _read(path: Path) -> tuple[str, list[tuple[int, float]]]:
    """Return the metric of a stored history and the history."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        history = [(int(n), math.nan if value is None else float(value)) for n, value in stored["history"]]
        return str(stored["metric"]), history
    except (OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as e:
        raise UserError(
            f"{path}: the history of the best metric cannot be read ({e!r}); without this file, the history starts anew"
        ) from e
