"""Detectron2's `engine.defaults`: a trainer and a predictor for the usual case."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import distributed as comm
from ...config import CfgNode
from ...engine import Hook, Trainer
from ...engine.config import validate
from ...engine.folder import make_output_dir
from ...engine.hooks import Evaluation, Progress
from ...engine.options import YAML_KEYS, read_options
from ...engine.preflight import check_recipe
from ...engine.setup import default_setup as _default_setup
from ...engine.solver import LRMultiplier
from ...errors import ArgumentError, argument_names
from ...evaluation import DatasetEvaluator, build_evaluator, copypaste_lines, inference_on_dataset
from ...modeling import build_model
from ..absent import absent
from ..advice import WRITERS
from ..data import build_detection_test_loader, build_detection_train_loader
from ..solver import build_lr_scheduler, build_optimizer
from ..utils.env import seed_all_rng
from ..utils.events import EventStorage
from ..utils.logger import setup_logger
from .hooks import EvaluationByMethod, HookBase, HookState
from .predictor import DefaultPredictor
from .recipe import ScriptRecipe

__all__ = ["DefaultPredictor", "DefaultTrainer", "default_setup"]

__getattr__ = absent(__name__, __all__)

logger = logging.getLogger(__name__)


def default_setup(cfg: CfgNode, args: Any) -> None:
    """Open the log, write the environment and `cfg.OUTPUT_DIR/config.yaml`, and seed all random generators.

    The seed is `cfg.SEED` plus the rank of the process; a negative one is replaced by a random one.

    Args:
        cfg: the configuration.
        args: the command line, of which `eval_only` is read if it is there; it may be None.
    """
    args = argparse.Namespace(eval_only=getattr(args, "eval_only", False))
    _default_setup(read_options(cfg, YAML_KEYS), cfg.dump(), args)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())


_METHODS = (
    *("build_model", "build_optimizer", "build_lr_scheduler", "build_train_loader"),
    *("build_test_loader", "build_evaluator", "test"),
)
"""The methods of a trainer that make or do a part of the run, if a subclass overrides them."""


class DefaultTrainer(Trainer):
    """The `Trainer` of this package for scripts that are written for Detectron2's class.

    Subclasses may override `build_model`, `build_optimizer`, `build_lr_scheduler`, `build_train_loader`,
    `build_test_loader`, `build_evaluator`, `build_hooks` and `test`. Without an override of `build_evaluator`, the data
    sets of `DATASETS.TEST` are scored by `sn2fpn.evaluation.build_evaluator`. Evaluations are in single precision, also
    if `SOLVER.AMP` trains in mixed precision, as in Detectron2.

    Args:
        cfg: the configuration.

    Raises:
        UserError: a mistake in the configuration.

    Attributes:
        cfg: the configuration.
        storage: the metrics, see `sn2fpn.compat.utils.events.EventStorage`.

    Example:
        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
    """

    storage_type = EventStorage
    storage: EventStorage

    def __init__(self, cfg: CfgNode) -> None:
        if not logging.getLogger("sn2fpn").isEnabledFor(logging.INFO):
            setup_logger()
        validate(cfg)
        self._own = _own_methods(type(self))
        self._ahead = 0  # by how much a hook sees a later iteration than the last one
        recipe = ScriptRecipe(cfg, type(self), self._own)
        if "build_model" in self._own:  # such a model may need more than a configuration can tell
            recipe.check_settings(eval_only=False)
        else:
            check_recipe(recipe)
        if hasattr(self, "build_writers"):
            logger.warning("%s.build_writers is not called: %s", type(self).__name__, WRITERS)
        with argument_names({"output_dir": "OUTPUT_DIR"}):
            make_output_dir(cfg.OUTPUT_DIR)
        super().__init__(recipe)
        self.cfg = recipe.cfg
        for hook in self.hooks:
            if isinstance(hook, Evaluation):
                hook.options = dataclasses.replace(hook.options, amp=False)
        self._default_hooks, self.hooks = self.hooks, []
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[Hook]:
        """Return the hooks; by default checkpoints, evaluation and progress, which is the last one."""
        if "test" not in self._own:
            return list(self._default_hooks)
        return [_by_method(hook) if isinstance(hook, Evaluation) else hook for hook in self._default_hooks]

    def register_hooks(self, hooks: Sequence[Hook | None]) -> None:
        """Add hooks in front of the one that writes the metrics, so that it also writes theirs. None is left out."""
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, Hook):
                raise ArgumentError("hooks", f"expected instances of HookBase, found {type(hook).__name__}")
            hook.trainer = self
            last = next((i for i, h in enumerate(self.hooks) if isinstance(h, Progress)), len(self.hooks))
            self.hooks.insert(last, hook)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint of the output folder, or load the weights to start from."""
        super().resume_or_load(resume)

    def train(self) -> dict[str, Any]:
        """Train up to `max_iter` and return the results of the last evaluation; those of one data set by task."""
        self.recipe.announce()
        self.recipe.check_data(eval_only=False)
        self.storage.iter = self.start_iter
        with self.storage:
            return _single(super().train())

    def run_step(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        self.storage.iter = self.iter
        self._call_hooks("before_step")
        super().run_step(batches)

    def _step_optimizer(self) -> None:
        self._call_hooks("after_backward")
        super()._step_optimizer()

    def _call_outside_steps(self, hook: Hook, method: str) -> None:
        if not isinstance(hook, HookBase):
            return super()._call_outside_steps(hook, method)
        self._ahead = 1  # these hooks count as in Detectron2, where the next iteration is the present one
        self.iter += 1
        super()._call_outside_steps(hook, method)
        self.iter -= 1
        self._ahead = 0

    def save(self, name: str, remember: bool = True, **extra: Any) -> None:
        """Write the checkpoint `<name>.pth` of the last finished iteration, also in hooks; see `Trainer.save`."""
        self.iter -= self._ahead
        super().save(name, remember, **extra)
        self.iter += self._ahead

    def _hooks_with_states(self) -> dict[str, Any]:
        found = super()._hooks_with_states()
        for hook in self.hooks:
            if isinstance(hook, HookBase) and not hook.checkpoint_key:
                found.setdefault(type(hook).__qualname__, HookState(hook))
        return found

    def _call_hooks(self, method: str) -> None:
        for hook in self.hooks:
            getattr(hook, method, lambda: None)()

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the model with fresh weights, on its device."""
        return build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the model's trainable parameters."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        """Return the learning-rate schedule, which is stepped after every iteration."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """Return the endless batches of this process."""
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """Return the images of a data set, one per batch."""
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        """Return the evaluator of a data set, by default the one that `TEST.EVALUATOR` selects."""
        folder = output_folder or Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return build_evaluator(cfg, dataset_name, folder)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate a model that has its weights on the data sets of `DATASETS.TEST`.

        Args:
            cfg: the configuration.
            model: the model.
            evaluators: one for each data set; None makes them with `build_evaluator`.

        Returns:
            `{task: {metric: score}}`, or with several data sets `{data set: {task: {metric: score}}}`.

        Raises:
            ArgumentError: there is another number of evaluators than of data sets.
        """
        given = [evaluators] if isinstance(evaluators, DatasetEvaluator) else evaluators
        names = cfg.DATASETS.TEST
        if given is not None and len(given) != len(names):
            problem = f"expected one for each of the {len(names)} data sets of DATASETS.TEST, found {len(given)}"
            raise ArgumentError("evaluators", problem)
        results = {}
        for i, name in enumerate(names):
            evaluator = cls.build_evaluator(cfg, name) if given is None else given[i]
            results[name] = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
            for line in copypaste_lines(results[name]):
                logger.info("%s", line)
        return _single(results)


def _by_method(hook: Evaluation) -> EvaluationByMethod:
    return EvaluationByMethod(hook.options, hook.test_sets, hook.model, hook.ema)


def _own_methods(trainer: type[DefaultTrainer]) -> set[str]:
    """Return the names of the methods that a subclass has in place of those of `DefaultTrainer`."""
    return {name for name in _METHODS if _function(trainer, name) is not _function(DefaultTrainer, name)}


def _function(cls: type, name: str) -> Any:
    """Return the function of a classmethod, a staticmethod or another method."""
    method = getattr(cls, name)
    return getattr(method, "__func__", method)


def _single(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results of the only data set, or of all of them by name."""
    return next(iter(results.values())) if len(results) == 1 else results
