"""Evaluation during a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from ... import distributed as comm
from ...errors import argument_names, counted
from ..best_model import BestModel, follow_best
from ..interrupts import Stopped
from ..options import RunOptions
from ..testing import AUGMENTED, TestSet, evaluate, flatten_results, validation_losses
from ..writers import METRICS, lacks_row
from .base import Hook
from .weights import EMA

__all__ = ["Evaluation"]

logger = logging.getLogger(__name__)


class Evaluation(Hook):
    """Evaluates the model every `options.eval_period` iterations and at the end, and keeps the best model.

    Args:
        options: the options of the run.
        test_sets: the data sets; without any, nothing is evaluated.
        model: the model.
        ema: the moving average that is evaluated in place of the model's weights.
        augmented: the model with test-time augmentation, which is evaluated in addition at the end of a run.
        metrics: the names of the metrics of an evaluation, or None if they are not known.

    A run may end between a checkpoint and the evaluation that follows it. Resuming then begins with that evaluation. A
    run that has been stopped by `options.patience` trains no further when it is resumed.
    """

    def __init__(
        self,
        options: RunOptions,
        test_sets: Sequence[TestSet],
        model: nn.Module,
        ema: EMA | None = None,
        augmented: nn.Module | None = None,
        metrics: Sequence[str] | None = None,
    ) -> None:
        self.options = options
        self.test_sets = test_sets
        self.model = model
        self.ema = ema
        self.augmented = augmented
        self.metrics = metrics
        self.best: BestModel | None = None
        self._evaluated_at = -1

    def before_train(self) -> None:
        self.best = follow_best(self.options, self.metrics, self._has_data(), self.trainer.start_iter)
        if 0 < self.trainer.start_iter < self.trainer.max_iter and self._is_due() and self._is_missing():
            logger.info(
                "The interrupted run has not evaluated the model after iteration %d; this is done now",
                self.trainer.start_iter,
            )
            self._run()
        if self._is_due() and self.best is not None:
            self._stop_after(comm.call_on_main(lambda: self.best.evaluations_since))

    def after_step(self) -> None:
        if self._is_due() and self.trainer.iter + 1 < self.trainer.max_iter:  # the last one follows the last checkpoint
            self._run()

    def _is_due(self) -> bool:
        period = self.options.eval_period
        return period > 0 and (self.trainer.iter + 1) % period == 0

    def _is_missing(self) -> bool:
        """Return whether the run ended between a checkpoint and the row with the results that should follow."""
        file = Path(self.options.output_dir) / METRICS
        return comm.call_on_main(lambda: lacks_row(file, self.trainer.iter))

    def after_train(self) -> None:
        if self._evaluated_at != self.trainer.iter:
            self._run()
        if self.augmented is not None and self._evaluated_at == self.trainer.iter:  # it was not interrupted
            self._run_augmented()
        if self.best is not None and self.best.history:
            self._tell_best(self.best)

    def _tell_best(self, best: BestModel) -> None:
        iteration, value = best.best
        if math.isnan(value):
            logger.warning("No evaluation gave a number for %s, so that there is no model_best.pth", best.metric)
        else:
            logger.info(
                "The best model is model_best.pth: %s %.4g after iteration %d", best.metric, value, iteration + 1
            )

    def _run_augmented(self) -> None:
        trainer = self.trainer
        try:
            with self.ema.swapped_in() if self.ema else nullcontext():
                results = evaluate(self.test_sets, self.augmented, self.options, trainer.interrupts, AUGMENTED)
        except Stopped:
            return
        for name, found in results.items():
            trainer.results[name] |= found
        trainer.storage.put_rare(flatten_results(results))

    def _run(self) -> None:
        if not self._has_data():
            return
        trainer, o = self.trainer, self.options
        trainer.read_metrics()  # no model is evaluated whose losses are not finite
        try:
            with self.ema.swapped_in() if self.ema else nullcontext():
                scalars = self._evaluate()
                if o.val_loss and self.test_sets:
                    scalars |= validation_losses(self.test_sets, self.model, o, trainer.interrupts)
        except Stopped:  # the trainer saves before the next step
            return
        self._evaluated_at = trainer.iter
        trainer.storage.put_rare(scalars)
        if self.best is None:
            return
        improved, value, since = comm.call_on_main(lambda: self._judge(self.best, scalars))
        if improved:  # all processes save, since the file holds the random states of all
            logger.info("The best model so far: %s %.4g after iteration %d", o.best_metric, value, trainer.iter + 1)
            trainer.save("model_best", remember=False, **{o.best_metric: value})
        self._stop_after(since)

    def _has_data(self) -> bool:
        return bool(self.test_sets)

    def _evaluate(self) -> dict[str, float]:
        """Evaluate the model as it is, keep the results, and return the metrics."""
        self.trainer.results = evaluate(self.test_sets, self.model, self.options, self.trainer.interrupts)
        return flatten_results(self.trainer.results)

    def _stop_after(self, evaluations: int) -> None:
        """Stop the training if this number of evaluations since the best one is what the user's patience allows."""
        o = self.options
        if 0 < o.patience <= evaluations:
            self.trainer.stop(f"{o.best_metric} has not improved for {counted(o.patience, 'evaluation')}")

    def _judge(self, best: BestModel, scalars: dict[str, float]) -> tuple[bool, float, int]:
        """Return whether an evaluation is the best one, the best value, and the number of evaluations since then."""
        with argument_names({"metric": self.options.key("best_metric")}):
            improved = best.update(self.trainer.iter, scalars)
        return improved, best.best[1], best.evaluations_since
