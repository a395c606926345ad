"""What this project adds to the reports of Detectron2's trainer: `results.csv`, the best model, and services."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import EventWriter, get_event_storage

from ...errors import argument_names
from ..best_model import follow_best
from ..options import YAML_KEYS, read_options
from ..remote import Remote
from ..results_file import RESULTS, Clock, ResultsWriter
from .checkpoints import Checkpointer
from .checks import given_metrics

__all__ = ["Evaluations", "RemoteWriter"]


class Evaluations(HookBase):
    """Adds each evaluation to `results.csv`, and keeps `model_best.pth`, on the main process.

    It follows the hook that evaluates. Detectron2's own hook for the best model forgets the best value when a run is
    resumed.

    Args:
        cfg: the configuration.
        checkpointer: writes the best model.
        clock: the wall time of the run.
        epoch_images: the number of training images, or 0 if it is not known.
    """

    def __init__(self, cfg: CfgNode, checkpointer: Checkpointer, clock: Clock, epoch_images: int) -> None:
        self._cfg = cfg
        self._checkpointer = checkpointer
        self._clock = clock
        self._epochs_per_iter = cfg.SOLVER.IMS_PER_BATCH / epoch_images if epoch_images else None

    def before_train(self) -> None:
        start, options, sets = self.trainer.start_iter, read_options(self._cfg, YAML_KEYS), self._cfg.DATASETS.TEST
        self._results = ResultsWriter(Path(options.output_dir) / RESULTS, start)
        self._clock.forward_to(self._results.seconds)
        self._best = follow_best(options, given_metrics(self._cfg), bool(sets), start)

    def after_step(self) -> None:
        done, period = self.trainer.iter + 1, self._cfg.TEST.EVAL_PERIOD
        if period > 0 and done % period == 0 and done != self.trainer.max_iter:
            self._report(self.trainer.iter)

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._report(self.trainer.max_iter - 1)

    def _report(self, iteration: int) -> None:
        results = getattr(self.trainer, "_last_eval_results", None)
        if not results:  # there are no test sets
            return
        self.add(iteration, results)
        if self._best is None:
            return
        scalars = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
        with argument_names({"metric": "TEST.BEST_METRIC"}):
            improved = self._best.update(iteration, scalars)
        if improved:
            value = {self._best.metric: scalars[self._best.metric]}
            self._checkpointer.save("model_best", remember=False, iteration=iteration, **value)

    def add(self, iteration: int, results: Mapping[str, Any]) -> None:
        """Add the results of an evaluation, except for those of single classes, to the row of an iteration."""
        found = {name: value for name, value in flatten_results_dict(results).items() if "-" not in Path(name).name}
        epoch = (iteration + 1) * self._epochs_per_iter if self._epochs_per_iter else None
        self._results.write(iteration, epoch, self._clock.seconds, found)


class RemoteWriter(EventWriter):
    """Sends the metrics of Detectron2's storage to a service, see `Remote`.

    Args:
        service: "wandb" or "mlflow".
        trainer: the trainer.
    """

    def __init__(self, service: str, trainer: Any) -> None:
        self._service = service
        self._trainer = weakref.proxy(trainer)
        self._remote: Remote | None = None
        self._written = -1

    def write(self) -> None:
        if self._remote is None:  # only now it is known whether the run was resumed
            self._remote = Remote(self._service, Path(self._trainer.cfg.OUTPUT_DIR), self._trainer.start_iter > 0)
        rows: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint().items():
            if iteration > self._written:
                rows[iteration][name] = value
        for iteration, scalars in sorted(rows.items()):
            self._remote.write(iteration, scalars)
        self._written = max(rows, default=self._written)

    def close(self) -> None:
        if self._remote is not None:
            self._remote.close(complete=self._trainer.iter + 1 >= self._trainer.max_iter)
