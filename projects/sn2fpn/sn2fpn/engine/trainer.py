"""The training loop of the native engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import torch

from .. import distributed as comm
from ..checkpoint import Checkpointer
from ..config import CfgNode
from ..errors import UserError, argument_names, counted
from ..modeling.trunk import frozen_norm_warning
from ..program import Interrupted
from .compiling import compile_backbone
from .gradients import Gradients, image_names
from .hooks import Hook, default_hooks
from .interrupts import Interrupts, Stopped
from .parallel import ShardedOptimizer, shard, traffic
from .prefetch import prefetched
from .preflight import checked_recipe
from .randomness import Randomness, seed_everything
from .recipe import Recipe
from .record import ClassNames, Configuration, Processes
from .solver.optimizer import gradient_scaler, main_group
from .step_log import NotFinite, StepLog
from .writers import MetricStorage

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)
_KEPT_ON_RESUME = "the seed and the optimizer's settings other than the learning rate"


class Trainer:
    """The loop that trains the model of a recipe on its data; hooks do what happens around the steps.

    Args:
        recipe: makes the parts of the run; a configuration stands for its recipe, after the checks of the command line.

    Raises:
        UserError: a mistake in the configuration.

    Attributes:
        model: the model itself, also where DistributedDataParallel wraps it.
        iter: the present iteration, counted from 0.
        max_iter: the number of iterations.
        epoch_images: the number of training images, from the call of `train()` on; 0 if it is not known.
        hooks: the hooks; add your own before `train()`.
        results: the results of the last evaluation, on the main process.
        interrupts: the requests to stop, while the run trains.

    Example:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        results = trainer.train()
    """

    storage_type = MetricStorage

    def __init__(self, recipe: Recipe | CfgNode) -> None:
        self.recipe = recipe = recipe if isinstance(recipe, Recipe) else checked_recipe(recipe)
        self.options = o = recipe.options
        self._randomness = Randomness(seed_everything(o.seed))
        self.model = recipe.build_model()
        compile_backbone(self.model, o)
        self._gradients = Gradients(self.model, o)
        optimizer = recipe.build_optimizer(self.model)
        self.optimizer = shard(optimizer) if o.zero else optimizer
        self.scheduler = recipe.build_scheduler(self.optimizer)
        self._main_group = main_group(self.optimizer)
        self._clip = recipe.build_gradient_clipper()
        self._scaler = gradient_scaler(self.optimizer, torch.device(o.device).type, o.precision)
        augmented = recipe.with_augmentation(self.model)
        self.hooks: list[Hook] = default_hooks(o, recipe.test_sets(), self.model, augmented, recipe.metrics())
        self.storage = self.storage_type()
        self.device = next(self.model.parameters()).device
        self._log = StepLog(self.storage)
        self._read_period = 1 if self.device.type == "cpu" else o.log_period  # to read a GPU is to wait for it
        self.results: dict[str, Any] = {}
        self.start_iter = self.iter = 0
        self.max_iter = o.max_iter
        self.epoch_images = 0
        # What explains why other states do not fit comes first.
        parts: dict[str, Any] = {"config": Configuration(recipe.dump(), o.keys, _KEPT_ON_RESUME)}
        parts["processes"] = Processes(o.reference_world_size, o.max_iter)
        parts |= {"optimizer": self.optimizer, "scheduler": self.scheduler, "run": self._randomness}
        parts |= {"metrics": self.storage, "class_names": ClassNames(recipe.class_names)}
        parts |= {"grad_scaler": self._scaler} if self._scaler.is_enabled() else {}
        self.checkpointer = Checkpointer(self.model, o.output_dir, **parts)
        self.interrupts = Interrupts()
        self._stop_reason = ""
        self._last_saved = ""
        self._unclaimed: dict[str, Any] = {}  # what no object of this run has taken from the checkpoint

    def resume_or_load(self, resume: bool = False) -> None:
        """Continue from the last checkpoint of the output folder, or load the weights to start from.

        Args:
            resume: whether to continue; without a checkpoint, the run starts afresh.
        """
        o = self.options
        self._adopt_hooks()
        with argument_names({"path": o.key("weights")}):
            state = self.checkpointer.resume_or_load(o.weights, resume=resume)
        self._unclaimed = state
        if "iteration" in state:
            self.start_iter = state["iteration"] + 1
            self._last_saved = self.checkpointer.get_checkpoint_file()
            logger.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)
        report = self.checkpointer.report
        warning = frozen_norm_warning(self.model, report.loaded if report else ())
        if warning:
            logger.warning(warning)

    def train(self) -> dict[str, Any]:
        """Train up to `max_iter` and return the results of the last evaluation, on the main process.

        Raises:
            UserError: a loss is not finite, or a worker process has died; after the latter, a checkpoint was saved.
            Interrupted: a signal has stopped the run, after a checkpoint was saved.
        """
        if self.start_iter >= self.max_iter:
            logger.info("Nothing to train: the checkpoint is at iteration %d of %d", self.start_iter, self.max_iter)
        if comm.get_world_size() > 1:
            logger.info("%s", traffic(self.model, self.optimizer))
        loader = self.recipe.build_train_loader(self.start_iter, self._randomness.seed)
        self.epoch_images = getattr(loader, "num_images", 0)
        self.iter = self.start_iter - 1
        self._adopt_hooks()
        with self.interrupts:
            try:
                for hook in self.hooks:
                    hook.trainer = self
                    self._call_outside_steps(hook, "before_train")
                self._run_steps(self.interrupts.batches(prefetched(loader, self.device)))
                for hook in self.hooks:
                    self._call_outside_steps(hook, "after_train")
            finally:
                for hook in self.hooks:
                    hook.close()
            if self.interrupts.stopped:
                what = f"{self._last_saved} is complete. Add --resume to the same command to repeat its evaluation"
                raise self.interrupts.stopped.reason("during the last evaluation", what)
        return self.results

    def _adopt_hooks(self) -> None:
        """Let checkpoints hold the states of the present hooks; one that is added after resuming gets its state now."""
        for key, hook in self._hooks_with_states().items():
            self.checkpointer.checkpointables[key] = hook
            if key in self._unclaimed:
                hook.load_state_dict(self._unclaimed.pop(key))

    def _hooks_with_states(self) -> dict[str, Any]:
        """Return what has the states of hooks, by the names in checkpoints."""
        return {hook.checkpoint_key: hook for hook in self.hooks if hook.checkpoint_key}

    def _call_outside_steps(self, hook: Hook, method: str) -> None:
        """Call `before_train` or `after_train` of a hook."""
        getattr(hook, method)()

    def _run_steps(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        self.model.train()
        for iteration in range(self.start_iter, self.max_iter):
            if self._stop_reason:
                logger.info("Stopped at iteration %d: %s", self.iter + 1, self._stop_reason)
                break
            self.iter = iteration
            try:
                self.run_step(batches)
            except Stopped as stopped:
                self.iter -= 1  # the step has not begun
                raise self._save_and_explain(stopped) from None
            for hook in self.hooks:
                hook.after_step()

    def run_step(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        """Make one step of the optimizer, whose gradients come from `accumulate_steps` parts of the next batch."""
        started = time.perf_counter()
        batch = next(batches)
        data_time = time.perf_counter() - started
        lr = self.optimizer.param_groups[self._main_group]["lr"]
        try:
            losses, metrics = self._gradients.add(batch, self._scaler)
        except FloatingPointError as e:
            self._fail_diverged(str(e), self.iter)
        self._step_optimizer()
        comm.average_statistics(self.model)  # so that all processes evaluate the model that is saved
        # Metrics are of this process alone, because which ones exist depends on the images.
        self._log.add(self.iter, image_names(batch), losses, metrics, started, lr=lr, data_time=data_time)
        done = self.iter + 1
        if self.iter == self.start_iter or done % self._read_period == 0 or done == self.max_iter:
            self.read_metrics()
        self.scheduler.step()

    def read_metrics(self) -> None:
        """Bring `storage` up to date, and check the losses of the steps whose values have not been read yet.

        On a CPU each step does so; on a GPU, each `log_period` iterations do, and all checkpoints and evaluations.

        Raises:
            UserError: a loss is not finite.
        """
        try:
            self._log.read()
        except NotFinite as e:
            self._fail_diverged(str(e), e.iteration)

    def _step_optimizer(self) -> None:
        if self._clip is not None:
            self._scaler.unscale_(self.optimizer)
            self._clip([p for group in self.optimizer.param_groups for p in group["params"]])
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _check_weights(self) -> None:
        """Fail if the last step has made weights that are not finite although its losses were, by too large a step."""
        state = self.model.state_dict()
        finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()  # one wait for a GPU
        broken = [name for name, good in zip(state, finite) if not good]
        if broken:
            what = counted(len(broken), "tensor of the model holds", "tensors of the model hold")
            self._fail_diverged(f"{what} NaN or infinite values, such as {broken[0]}", self.iter)

    def _fail_diverged(self, what: str, iteration: int) -> NoReturn:
        safe = f"the last good checkpoint is {self._last_saved}" if self._last_saved else "no checkpoint was saved yet"
        key = self.options.key
        raise UserError(
            f"the training diverged at iteration {iteration + 1}: {what}; {safe}. Common remedies are "
            f"a lower {key('lr')}, a longer {key('warmup_iters')}, {key('clip')} True, or {key('trunk_norm')} BN or "
            "GN when training from scratch (FrozenBN needs pretrained weights)"
        )

    def save(self, name: str, remember: bool = True, **extra: Any) -> None:
        """Write the checkpoint `<name>.pth`.

        Args:
            name: name of the file without `.pth`.
            remember: whether `--resume` continues from this file.
            extra: further values for the file.

        Raises:
            UserError: weights or losses are not finite, so that the file would be of no use; or it cannot be written.
        """
        self.read_metrics()
        self._check_weights()
        self._adopt_hooks()
        self._randomness.record()
        if isinstance(self.optimizer, ShardedOptimizer):
            self.optimizer.gather_state()
        self.checkpointer.save(name, tag_last=remember, iteration=self.iter, **extra)
        self.checkpointer.delete_old(self.options.checkpoints_to_keep)
        comm.barrier()
        self._last_saved = self.checkpointer.get_checkpoint_file()

    def stop(self, reason: str) -> None:
        """End the training after this iteration."""
        self._stop_reason = reason

    def _save_and_explain(self, stopped: Stopped) -> Interrupted | UserError:
        if self.iter < self.start_iter:
            return stopped.reason("before the first step", "there was nothing to save")
        self.save(f"model_{self.iter:07d}")
        what = f"{self._last_saved} was saved. Add --resume to the same command to continue"
        return stopped.reason(f"after iteration {self.iter + 1}", what)
