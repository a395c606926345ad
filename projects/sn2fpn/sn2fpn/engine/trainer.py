"""The training loop of the native engine."""

from __future__ import annotations

import inspect
import logging
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import distributed as comm
from ..checkpoint import Checkpointer
from ..config import CfgNode
from ..errors import UserError, argument_names
from ..modeling.metrics import collect_metrics
from ..modeling.trunk import frozen_norm_warning
from .hooks import EMA, Checkpoints, Evaluation, Hook, Progress
from .options import RunOptions
from .recipe import CfgRecipe, Recipe
from .setup import seed_everything
from .writers import MetricStorage

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Trains what a recipe makes: model, data, optimizer; hooks do what is around the steps.

    Example:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        results = trainer.train()

    Args:
        recipe: makes the parts; a configuration stands for the `CfgRecipe` of it.

    Attributes:
        iter: the iteration being done (0-based); max_iter: where training ends.
        model: the bare model; hooks: extend before `train()` for your own.
    """

    def __init__(self, recipe: Recipe | CfgNode) -> None:
        self.recipe = recipe = recipe if isinstance(recipe, Recipe) else CfgRecipe(recipe)
        self.options = o = recipe.options
        self.seed = seed_everything(o.seed)
        self.model = recipe.build_model()
        self._wrapped = self.model if comm.get_world_size() == 1 else _distributed(self.model, o)
        self.optimizer = recipe.build_optimizer(self.model)
        self.scheduler = recipe.build_scheduler(self.optimizer)
        self._clip = recipe.build_gradient_clipper()
        self._autocast, self._scaler = _mixed_precision(o)
        self.ema = EMA(self.model, o.ema_decay) if o.ema else None
        self.storage = MetricStorage()
        self.start_iter = self.iter = 0
        self.max_iter = o.max_iter
        parts: dict[str, Any] = {"optimizer": self.optimizer, "scheduler": self.scheduler, "run": self}
        parts |= {"grad_scaler": self._scaler} if self._scaler.is_enabled() else {}
        parts |= {"ema": self.ema} if self.ema else {}
        self.checkpointer = Checkpointer(self.model, o.output_dir, **parts)
        self.hooks = self.build_hooks()
        self._stop_reason = ""
        self._signals: list[int] = []
        self._last_saved = ""

    def build_hooks(self) -> list[Hook]:
        """Hooks in the order in which they act after a step; evaluation after the checkpoint is safe."""
        o = self.options
        self.evaluation = Evaluation(o, self.recipe.test_sets(), self.model)
        hooks: list[Hook] = [self.ema] if self.ema else []
        hooks += [Checkpoints(o.checkpoint_period), self.evaluation]
        if comm.is_main_process():
            hooks.append(Progress(Path(o.output_dir), o.images_per_batch, o.log_period))
        return hooks

    def resume_or_load(self, resume: bool = False) -> None:
        """Continue from the output folder's last checkpoint, or load the weights to start from."""
        o = self.options
        with argument_names({"path": o.key("weights")}):
            state = self.checkpointer.resume_or_load(o.weights, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = state["iteration"] + 1
            self._last_saved = self.checkpointer.get_checkpoint_file()
            logger.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)
        elif self.ema is not None:
            self.ema.reset()
        report = self.checkpointer.report
        warning = frozen_norm_warning(self.model, report.loaded if report else ())
        if warning:
            logger.warning(warning)

    def train(self) -> dict[str, Any]:
        """Train to `max_iter`; returns the last evaluation's results (main process).

        Raises:
            UserError: a loss is not finite.
            KeyboardInterrupt: after Ctrl-C or SIGTERM; a checkpoint has been saved.
        """
        if self.start_iter >= self.max_iter:
            logger.info("Nothing to train: the checkpoint is at iteration %d of %d", self.start_iter, self.max_iter)
        batches = iter(self.recipe.build_train_loader(self.start_iter, self.seed))
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        self.iter = self.start_iter - 1
        try:
            for hook in self.hooks:
                hook.trainer = self
                hook.before_train()
            self.model.train()
            for iteration in range(self.start_iter, self.max_iter):
                self.iter = iteration
                self.run_step(batches)
                for hook in self.hooks:
                    hook.after_step()
                self._obey_signals()
                if self._stop_reason:
                    logger.info("Stopped at iteration %d: %s", self.iter + 1, self._stop_reason)
                    break
            for hook in self.hooks:
                hook.after_train()
        finally:
            for s, handler in previous.items():
                signal.signal(s, handler)
            for hook in self.hooks:
                hook.close()
        return self.evaluation.results

    def run_step(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        """One optimizer step over `accumulate_steps` parts of a batch."""
        started = time.perf_counter()
        batch = next(batches)
        data_time = time.perf_counter() - started
        parts = self.options.accumulate_steps
        size = len(batch) // parts
        sums: dict[str, torch.Tensor] = {}
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        with collect_metrics() as metrics:
            for i in range(parts):
                last = i == parts - 1
                sync = nullcontext() if last or self._wrapped is self.model else self._wrapped.no_sync()
                with sync:
                    for name, loss in self._forward_backward(batch[i * size : (i + 1) * size], 1 / parts).items():
                        sums[name] = sums.get(name, 0) + loss.detach() / parts
        self._step_optimizer()
        losses = {k: float(v) for k, v in comm.reduce_mean(sums).items()}
        # other scalars are this process's own: which there are depends on the images (accuracy needs foreground)
        values = losses | {"total_loss": sum(losses.values())} | {k: float(v) for k, v in metrics.items()}
        if not torch.isfinite(torch.stack([v.float() for v in sums.values()])).all():
            self._fail_not_finite(batch, str({k: float(v) for k, v in sums.items()}))
        self.scheduler.step()
        self.storage.put(values | {"lr": lr, "data_time": data_time, "time": time.perf_counter() - started})

    def _forward_backward(self, part: list[dict[str, Any]], weight: float) -> dict[str, torch.Tensor]:
        try:
            with self._autocast():
                losses = self._wrapped(part)
        except FloatingPointError as e:
            self._fail_not_finite(part, str(e))
        self._scaler.scale(sum(losses.values()) * weight).backward()
        return losses

    def _step_optimizer(self) -> None:
        if self._clip is not None:
            self._scaler.unscale_(self.optimizer)
            self._clip([p for group in self.optimizer.param_groups for p in group["params"]])
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _fail_not_finite(self, batch: list[dict[str, Any]], what: str) -> None:
        ids = ", ".join(str(d.get("image_id", d.get("file_name"))) for d in batch)
        safe = f"the last good checkpoint is {self._last_saved}" if self._last_saved else "no checkpoint was saved yet"
        key = self.options.key
        raise UserError(
            f"training diverged at iteration {self.iter + 1}: {what} on images {ids}; {safe}. Common remedies: a "
            f"lower {key('lr')}, a longer {key('warmup_iters')}, {key('clip')} True, or {key('trunk_norm')} BN / GN "
            "when training from scratch (FrozenBN needs pretrained weights)"
        )

    def save(self, name: str, remember: bool = True, **extra: Any) -> None:
        """Write `<name>.pth`; `remember` makes it the one that --resume finds."""
        self._random_states = comm.gather(_random_state())
        self.checkpointer.save(name, tag_last=remember, iteration=self.iter, **extra)
        self.checkpointer.delete_old(self.options.checkpoints_to_keep)
        comm.barrier()
        self._last_saved = self.checkpointer.get_checkpoint_file()

    def state_dict(self) -> dict[str, Any]:
        """What makes the stream of data and samples go on: the seed and each process's random state."""
        return {"seed": self.seed, "random_states": self._random_states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed = state["seed"]
        states = state["random_states"]
        if len(states) == comm.get_world_size():
            _restore_random_state(states[comm.get_rank()])
        else:
            logger.warning(
                "The checkpoint was written by %d processes, this run has %d: random state starts afresh",
                len(states),
                comm.get_world_size(),
            )

    def stop(self, reason: str) -> None:
        """End training after this iteration."""
        self._stop_reason = reason

    def _on_signal(self, number: int, _frame: Any) -> None:
        """The first Ctrl-C or SIGTERM lets the step finish; a second one stops at once."""
        if self._signals:
            raise KeyboardInterrupt
        self._signals.append(number)

    def _obey_signals(self) -> None:
        """All processes stop after the same iteration, whichever of them was told first."""
        told = bool(self._signals)
        if comm.get_world_size() > 1:
            flag = torch.tensor(float(told), device=next(self.model.parameters()).device)
            torch.distributed.all_reduce(flag)
            told = bool(flag)
        if told and self.iter + 1 < self.max_iter:
            self.save(f"model_{self.iter:07d}")
            logger.warning(
                "Interrupted after iteration %d; saved %s. Add --resume to the same command to go on",
                self.iter + 1,
                self._last_saved,
            )
            raise KeyboardInterrupt


def _distributed(model: nn.Module, options: RunOptions) -> DistributedDataParallel:
    """The model whose gradients are averaged over processes; by default norm statistics stay each process's own."""
    ids = [comm.get_local_rank()] if options.device.startswith("cuda") else None
    choices = dict(options.ddp)
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:  # torch's new name for it
        choices["forward_sync_buffers"] = choices.pop("broadcast_buffers", True)
    # of 1x1 convs in channels_last, whose two layouts are the same numbers in the same order
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(model, device_ids=ids, **choices)


def _mixed_precision(options: RunOptions) -> tuple[Any, torch.amp.GradScaler]:
    """(autocast factory, gradient scaler); the scaler only acts for float16."""
    device = options.device.split(":")[0]
    auto = "float16" if device == "cuda" else "bfloat16"
    dtype = auto if options.amp_dtype == "auto" else options.amp_dtype
    scaler = torch.amp.GradScaler(device, enabled=options.amp and dtype == "float16")
    if not options.amp:
        return nullcontext, scaler
    return lambda: torch.autocast(device, getattr(torch, dtype)), scaler


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
