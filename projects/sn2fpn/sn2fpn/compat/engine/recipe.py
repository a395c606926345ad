"""The recipe of a script's run, whose parts the class of its trainer makes. Detectron2 has no such module."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from functools import partial
from typing import Any

import torch
from torch import nn

from ...config import CfgNode
from ...data import build_test_loader
from ...engine.recipe import CfgRecipe
from ...engine.solver import ConstantParamScheduler, LRMultiplier
from ...engine.testing import TestSet
from ...evaluation import build_evaluator
from ..solver import leave_clipping

__all__ = ["ScriptRecipe"]

logger = logging.getLogger(__name__)


class ScriptRecipe(CfgRecipe):
    """The recipe of a configuration, whose parts the class of a trainer makes.

    Args:
        cfg: the configuration.
        trainer: the class, a `DefaultTrainer`.
        own: the names of the methods that the class overrides.
    """

    def __init__(self, cfg: CfgNode, trainer: type[Any], own: Set[str]) -> None:
        super().__init__(cfg)
        self._trainer = trainer
        self._own = own

    def metrics(self) -> list[str] | None:
        return None if self._own & {"build_evaluator", "test"} else super().metrics()

    def on_device(self, device: str) -> CfgRecipe:
        return _Preview(super().on_device(device).cfg, self._trainer, self._own)

    def build_model(self) -> nn.Module:
        model = self._trainer.build_model(self.cfg)
        if "build_model" in self._own:
            model.register_forward_hook(_name_loss)
        return model

    def with_augmentation(self, model: nn.Module) -> nn.Module | None:
        if "test" not in self._own:
            return super().with_augmentation(model)
        if self.cfg.TEST.AUG.ENABLED:
            logger.warning("TEST.AUG has no effect, because %s has a method test of its own", self._trainer.__name__)
        return None

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return leave_clipping(self._trainer.build_optimizer(self.cfg, model))  # the trainer clips

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        return self._trainer.build_lr_scheduler(self.cfg, optimizer)

    def build_train_loader(self, start_iter: int, seed: int) -> Iterable[list[dict[str, Any]]]:
        if "build_train_loader" in self._own:
            return self._trainer.build_train_loader(self.cfg)
        return super().build_train_loader(start_iter, seed)

    def test_sets(self) -> list[TestSet]:
        return [TestSet(name, self._test_loader(name), self._evaluator(name)) for name in self.cfg.DATASETS.TEST]

    def _test_loader(self, name: str) -> Any:
        if "build_test_loader" in self._own:
            return lambda **_: self._trainer.build_test_loader(self.cfg, name)
        return partial(build_test_loader, self.cfg, name)

    def _evaluator(self, name: str) -> Any:
        if "build_evaluator" in self._own:
            return lambda _: self._trainer.build_evaluator(self.cfg, name)
        return partial(build_evaluator, self.cfg, name)


class _Preview(ScriptRecipe):
    """The recipe for the check before a run, which leaves to the run what the trainer's class makes in its own way."""

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if "build_optimizer" in self._own:
            return torch.optim.SGD(model.parameters(), lr=1.0)
        return super().build_optimizer(model)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        if "build_lr_scheduler" in self._own:
            return LRMultiplier(optimizer, ConstantParamScheduler(1.0), 1)
        return super().build_scheduler(optimizer)


def _name_loss(model: nn.Module, _: Any, output: Any) -> Any:
    """Return the losses by name, also those of a model that returns their sum, as Detectron2 allows."""
    return {"total_loss": output} if model.training and isinstance(output, torch.Tensor) else output
