"""What happens around the steps of a run: checkpoints, evaluation, moving average, progress."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import distributed as comm
from ..atomic import atomic_write
from ..errors import UserError, did_you_mean
from .options import RunOptions
from .testing import TestSet, evaluate, flatten_results, validation_losses
from .writers import ConsoleWriter, JSONWriter, TensorBoardWriter, peak_memory_mib

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["BestModel", "Checkpoints", "EMA", "Evaluation", "Hook", "Progress"]

logger = logging.getLogger(__name__)


class Hook:
    """Something to do around training steps; `trainer` is set before training starts."""

    trainer: Trainer

    def before_train(self) -> None:
        """Once, after weights are loaded."""

    def after_step(self) -> None:
        """After the optimizer and the schedule stepped; `trainer.iter` is the iteration just done."""

    def after_train(self) -> None:
        """Once, when training ended by itself (last iteration or early stop)."""

    def close(self) -> None:
        """Always, also after an error."""


class EMA(Hook):
    """Exponential moving average of weights: e <- decay * e + (1 - decay) * w after every step.

    Floating-point buffers (norm statistics) are averaged too, others copied. Evaluation runs on it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self.decay = decay
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def reset(self) -> None:
        """Start again from the model's weights (after a checkpoint was loaded)."""
        self.load_state_dict(self._model.state_dict())

    @torch.no_grad()
    def after_step(self) -> None:
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.decay)
            else:
                self.average[name].copy_(value)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the averaged weights inside this context."""
        own = {k: v.detach().clone() for k, v in self._model.state_dict().items()}
        self._model.load_state_dict(self.average)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.average

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, value in state.items():
            if name in self.average:
                self.average[name].copy_(value)


class Checkpoints(Hook):
    """`model_0004999.pth` every `period` iterations and `model_final.pth`."""

    def __init__(self, period: int) -> None:
        self.period = period

    def after_step(self) -> None:
        t = self.trainer
        if t.iter + 1 < t.max_iter and (t.iter + 1) % self.period == 0:
            t.save(f"model_{t.iter:07d}")

    def after_train(self) -> None:
        self.trainer.save("model_final")


class BestModel:
    """Keeps `model_best.pth` by one metric and counts evaluations since it improved.

    The history of the metric lies in `best_metric.json`, so that a resumed run knows it.
    """

    def __init__(self, metric: str, output_dir: Path, start_iter: int, key: str = "TEST.BEST_METRIC") -> None:
        self.metric = metric
        self._key = key
        self._sign = -1.0 if "loss" in metric else 1.0  # losses: lower is better
        self._path = output_dir / "best_metric.json"
        self.history: list[tuple[int, float]] = []
        if start_iter and self._path.is_file():
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["metric"] == metric:
                self.history = [(i, v) for i, v in stored["history"] if i < start_iter]

    def update(self, iteration: int, scalars: dict[str, float]) -> bool:
        """Note an evaluation; True when it is the best so far. A NaN is never best."""
        if self.metric not in scalars:
            hint = did_you_mean(self.metric, scalars)
            raise UserError(f"{self._key}: the evaluation gives no {self.metric!r}{hint}")
        value = scalars[self.metric]
        improved = value == value and (not self.history or self._score(value) > self._score(self.best[1]))
        self.history.append((iteration, value))
        with atomic_write(self._path) as f:
            json.dump({"metric": self.metric, "history": self.history}, f)
        return improved

    def _score(self, value: float) -> float:
        return self._sign * value if value == value else float("-inf")

    @property
    def best(self) -> tuple[int, float]:
        """(iteration, value) of the best evaluation."""
        return max(self.history, key=lambda entry: self._score(entry[1]))

    @property
    def evaluations_since(self) -> int:
        return len(self.history) - 1 - self.history.index(self.best)


class Evaluation(Hook):
    """Evaluates every `options.eval_period` iterations and at the end."""

    def __init__(self, options: RunOptions, test_sets: Sequence[TestSet], model: nn.Module) -> None:
        self.options = options
        self.test_sets = test_sets
        self.model = model
        self.results: dict[str, Any] = {}
        self._evaluated_at = -1

    def before_train(self) -> None:
        o = self.options
        best = (o.best_metric, Path(o.output_dir), self.trainer.start_iter, o.key("best_metric"))
        self.best = BestModel(*best) if o.best_metric else None

    def after_step(self) -> None:
        period = self.options.eval_period
        if period > 0 and (self.trainer.iter + 1) % period == 0:
            self._run()

    def after_train(self) -> None:
        if self._evaluated_at != self.trainer.iter:
            self._run()

    def _run(self) -> None:
        if not self.test_sets:
            return
        t, o = self.trainer, self.options
        self._evaluated_at = t.iter
        with ExitStack() as stack:
            if t.ema is not None:
                stack.enter_context(t.ema.swapped_in())
            self.results = evaluate(self.test_sets, self.model, o.output_dir)
            scalars = flatten_results(self.results)
            if o.val_loss:
                scalars |= validation_losses(self.test_sets, self.model)
        t.storage.put_rare(scalars)
        stop = False
        if self.best is not None and comm.is_main_process():
            if self.best.update(t.iter, scalars):
                t.save("model_best", remember=False, **{o.best_metric: self.best.best[1]})
            stop = 0 < o.patience <= self.best.evaluations_since
        if comm.broadcast_object(stop):
            t.stop(f"{o.best_metric} has not improved for {o.patience} evaluations")


class Progress(Hook):
    """Console, metrics.json and TensorBoard, every `period` iterations; main process only."""

    def __init__(self, output_dir: Path, images_per_iter: int, period: int = 20) -> None:
        self._dir = output_dir
        self._images = images_per_iter
        self._period = period
        self._console: ConsoleWriter | None = None
        self._files: list[JSONWriter | TensorBoardWriter] = []

    def before_train(self) -> None:
        self._console = ConsoleWriter(self.trainer.start_iter, self.trainer.max_iter, self._images)
        self._files = [JSONWriter(self._dir / "metrics.json"), TensorBoardWriter(self._dir)]

    def after_step(self) -> None:
        t = self.trainer
        smoothed = t.storage.smoothed()
        self._console.tick(t.iter, smoothed.get("total_loss", 0.0))
        done = t.iter + 1
        if done % self._period and done != t.max_iter and done != t.start_iter + 1:
            return
        smoothed["eta_seconds"] = t.storage.mean("time") * (t.max_iter - done)
        smoothed["peak_memory_mib"] = peak_memory_mib()
        self._console.write(t.iter, smoothed)
        self._write(smoothed)

    def after_train(self) -> None:
        self._write({})

    def _write(self, scalars: dict[str, float]) -> None:
        scalars = scalars | self.trainer.storage.take_rare()
        for writer in self._files if scalars else ():
            writer.write(self.trainer.iter, scalars)

    def close(self) -> None:
        if self._console is not None:
            self._console.close()
        for writer in self._files:
            writer.close()
        self._files = []
