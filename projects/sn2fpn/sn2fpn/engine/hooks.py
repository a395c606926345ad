"""What happens around the steps of a run: a moving average, checkpoints, evaluation and progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .. import distributed as comm
from ..errors import argument_names
from .best_model import BestModel
from .interrupts import Interrupts, Stopped
from .options import RunOptions
from .testing import TestSet, evaluate, flatten_results, validation_losses
from .writers import ConsoleWriter, JSONWriter, MetricStorage, TensorBoardWriter, lacks_row, peak_memory_mib

__all__ = ["EMA", "Checkpoints", "Evaluation", "Hook", "Progress", "Run", "default_hooks"]

logger = logging.getLogger(__name__)
_METRICS = "metrics.json"


class Run(Protocol):
    """What hooks know of the trainer.

    Attributes:
        start_iter: the first iteration, counted from 0.
        iter: the present iteration; before the training starts, the last one of the checkpoint that is resumed, or -1.
        max_iter: the number of iterations.
        storage: the latest metrics.
        results: the results of the last evaluation, on the main process.
        interrupts: the requests to stop.
    """

    start_iter: int
    iter: int
    max_iter: int
    storage: MetricStorage
    results: dict[str, Any]
    interrupts: Interrupts

    def save(self, name: str, remember: bool = True, **extra: Any) -> None:
        """Write the checkpoint `<name>.pth`, from which `--resume` continues if `remember` is True."""

    def stop(self, reason: str) -> None:
        """End the training after this iteration."""


class Hook:
    """Something that is done around the steps of the training.

    Attributes:
        trainer: the trainer, which is set before the training starts.
        checkpoint_key: the name under which a checkpoint holds the hook's `state_dict()`; "" if it holds none.
    """

    trainer: Run
    checkpoint_key = ""

    def before_train(self) -> None:
        """Called once, after the weights were loaded."""

    def after_step(self) -> None:
        """Called after the optimizer and the schedule made their step in the iteration `trainer.iter`."""

    def after_train(self) -> None:
        """Called once, when the training ended by itself, after the last iteration or by an early stop."""

    def close(self) -> None:
        """Called at the end in any case, also after an error."""


def default_hooks(options: RunOptions, test_sets: Sequence[TestSet], model: nn.Module) -> list[Hook]:
    """Return the hooks of a run in the order in which they act; the evaluation follows the checkpoint."""
    ema = EMA(model, options.ema_decay) if options.ema else None
    hooks: list[Hook] = [ema] if ema else []
    hooks += [Checkpoints(options.checkpoint_period), Evaluation(options, test_sets, model, ema)]
    if comm.is_main_process():
        hooks.append(Progress(Path(options.output_dir), options.images_per_batch, options.log_period))
    return hooks


class EMA(Hook):
    """An exponential moving average of the weights: e <- decay * e + (1 - decay) * w after every step.

    Floating-point buffers, such as the statistics of norms, are averaged too; other buffers are copied.

    Args:
        model: the model whose weights are averaged.
        decay: the decay, from 0 to 1.

    Attributes:
        average: the averaged state dict.
    """

    checkpoint_key = "ema"

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._step_to = get_ema_multi_avg_fn(decay)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self._restored = False

    def before_train(self) -> None:
        if self._restored:
            return
        self._copy(self._model.state_dict())  # the average starts from weights that may have been loaded
        if self.trainer.start_iter:
            logger.warning(
                "The checkpoint holds no moving average of the weights, so the average starts at iteration %d from the "
                "weights of the checkpoint",
                self.trainer.start_iter,
            )

    def after_step(self) -> None:
        own = self._model.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        self._step_to([self.average[name] for name in floats], [own.pop(name) for name in floats], 0)
        self._copy(own)  # the others

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the averaged weights inside this context."""
        own = {k: v.detach().clone() for k, v in self._model.state_dict().items()}
        self._model.load_state_dict(self.average)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.average

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._copy(state)
        self._restored = True

    def _copy(self, state: dict[str, torch.Tensor]) -> None:
        for name, value in state.items():
            if name in self.average:
                self.average[name].copy_(value)


class Checkpoints(Hook):
    """Writes `model_0004999.pth` and so on every `period` iterations, and `model_final.pth` at the end."""

    def __init__(self, period: int) -> None:
        self.period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done < self.trainer.max_iter and done % self.period == 0:
            self.trainer.save(f"model_{self.trainer.iter:07d}")

    def after_train(self) -> None:
        self.trainer.save("model_final")


class Evaluation(Hook):
    """Evaluates the model every `options.eval_period` iterations and at the end, and keeps the best model.

    Args:
        options: the options of the run.
        test_sets: the data sets; without any, nothing is evaluated.
        model: the model.
        ema: the moving average that is evaluated in place of the model's weights.

    A run may end between a checkpoint and the evaluation that follows it. Resuming then begins with that evaluation.
    """

    def __init__(
        self, options: RunOptions, test_sets: Sequence[TestSet], model: nn.Module, ema: EMA | None = None
    ) -> None:
        self.options = options
        self.test_sets = test_sets
        self.model = model
        self.ema = ema
        self.best: BestModel | None = None
        self._evaluated_at = -1

    def before_train(self) -> None:
        o = self.options
        if o.best_metric:
            self.best = BestModel(o.best_metric, Path(o.output_dir), self.trainer.start_iter)
        if 0 < self.trainer.start_iter < self.trainer.max_iter and self._is_due() and self._is_missing():
            logger.info("The evaluation after iteration %d is made up for", self.trainer.start_iter)
            self._run()

    def after_step(self) -> None:
        if self._is_due():
            self._run()

    def _is_due(self) -> bool:
        period = self.options.eval_period
        return period > 0 and (self.trainer.iter + 1) % period == 0

    def _is_missing(self) -> bool:
        """Return whether the run ended between a checkpoint and the row with the results that should follow."""
        file = Path(self.options.output_dir) / _METRICS
        return comm.call_on_main(lambda: lacks_row(file, self.trainer.iter))

    def after_train(self) -> None:
        if self._evaluated_at != self.trainer.iter:
            self._run()

    def _run(self) -> None:
        if not self.test_sets:
            return
        trainer, o = self.trainer, self.options
        try:
            with self.ema.swapped_in() if self.ema else nullcontext():
                trainer.results = evaluate(self.test_sets, self.model, o.output_dir, trainer.interrupts)
                scalars = flatten_results(trainer.results)
                if o.val_loss:
                    scalars |= validation_losses(self.test_sets, self.model, trainer.interrupts)
        except Stopped:  # the trainer saves before the next step
            return
        self._evaluated_at = trainer.iter
        trainer.storage.put_rare(scalars)
        stop = False
        if self.best is not None and comm.is_main_process():
            with argument_names({"metric": o.key("best_metric")}):
                improved = self.best.update(trainer.iter, scalars)
            if improved:
                trainer.save("model_best", remember=False, **{o.best_metric: self.best.best[1]})
            stop = 0 < o.patience <= self.best.evaluations_since
        if comm.broadcast_object(stop):
            trainer.stop(f"{o.best_metric} has not improved for {o.patience} evaluations")


class Progress(Hook):
    """Writes metrics to the console, `metrics.json` and TensorBoard every `period` iterations, in the main process.

    Args:
        output_dir: the folder of the files.
        images_per_iter: images per iteration, for the speed.
        period: iterations between two lines.
    """

    def __init__(self, output_dir: Path, images_per_iter: int, period: int = 20) -> None:
        self._dir = output_dir
        self._images = images_per_iter
        self._period = period
        self._console: ConsoleWriter | None = None
        self._rows: JSONWriter | None = None
        self._events: TensorBoardWriter | None = None

    def before_train(self) -> None:
        t = self.trainer
        self._console = ConsoleWriter(t.start_iter, t.max_iter, self._images)
        missing = t.start_iter > 0 and lacks_row(self._dir / _METRICS, t.iter)
        self._rows = JSONWriter(self._dir / _METRICS, t.start_iter)
        self._events = TensorBoardWriter(self._dir, t.start_iter)
        if missing:  # the run ended between the checkpoint and this row
            self._write(self._smoothed() if self._is_due() else {})

    def after_step(self) -> None:
        t = self.trainer
        smoothed = self._smoothed()
        self._console.tick(t.iter, smoothed.get("total_loss", 0.0))
        due = self._is_due()
        if due or t.iter == t.start_iter:
            self._console.write(t.iter, smoothed)
        self._write(smoothed if due else {})

    def after_train(self) -> None:
        self._write({})

    def _is_due(self) -> bool:
        done = self.trainer.iter + 1
        return done % self._period == 0 or done in (1, self.trainer.max_iter)

    def _smoothed(self) -> dict[str, float]:
        t = self.trainer
        remaining = t.storage.mean("time") * (t.max_iter - t.iter - 1)
        return t.storage.smoothed() | {"eta_seconds": remaining, "peak_memory_mib": peak_memory_mib()}

    def _write(self, scalars: dict[str, float]) -> None:
        if self.trainer.interrupts.stopped:  # in an evaluation: --resume repeats it and then writes the row as a whole
            return
        scalars = scalars | self.trainer.storage.take_rare()
        if scalars:
            self._rows.write(self.trainer.iter, scalars)
            self._events.write(self.trainer.iter, scalars)

    def close(self) -> None:
        if self._console is not None:
            self._console.close()
        if self._events is not None:
            self._events.close()
