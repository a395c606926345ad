"""What a run is made of. The trainer knows recipes only, whatever kind of configuration they come from."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import distributed as comm
from ..config import CfgNode
from ..data import build_test_loader, build_train_loader, check_classes, class_names, register_custom
from ..evaluation import build_evaluator
from ..modeling import build_model
from .options import YAML_KEYS, RunOptions, read_options
from .setup import scale_to_world_size
from .solver import GradientClipper, LRMultiplier, build_gradient_clipper, build_lr_scheduler, build_optimizer
from .testing import TestSet

__all__ = ["CfgRecipe", "Recipe"]

logger = logging.getLogger(__name__)


class Recipe(ABC):
    """Makes the parts of a run when they are asked for: after the processes joined and the seed was set."""

    options: RunOptions

    def announce(self) -> None:  # noqa: B027 - optional
        """Log what a user should know of the configuration before the run; nothing by default."""

    @abstractmethod
    def check_data(self, eval_only: bool) -> None:
        """Register what is to be registered; raise UserError when the data do not suit the model."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The model with fresh weights, on its device, in training mode."""

    @abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's trainable parameters."""

    @abstractmethod
    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        """The learning-rate schedule, stepped after every iteration."""

    @abstractmethod
    def build_gradient_clipper(self) -> GradientClipper | None:
        """What clips gradients before a step; None: nothing."""

    @abstractmethod
    def build_train_loader(self, start_iter: int, seed: int) -> Iterable[list[dict[str, Any]]]:
        """This process's endless batches, from the one of iteration `start_iter` on."""

    @abstractmethod
    def test_sets(self) -> list[TestSet]:
        """What to evaluate on."""

    @abstractmethod
    def draw_predictions(self, model: nn.Module, path: Path) -> Path | None:
        """Draw predictions beside ground truth; None when there is nothing to draw."""

    @abstractmethod
    def dump(self) -> str:
        """The whole configuration as YAML."""


class CfgRecipe(Recipe):
    """The parts that a YAML configuration names.

    Args:
        cfg: the configuration; its schedule is scaled when SOLVER.REFERENCE_WORLD_SIZE asks for it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        cfg = cfg.clone()
        cfg.freeze()
        self._given = cfg
        self.cfg = scale_to_world_size(cfg, comm.get_world_size())
        self.options = read_options(self.cfg, YAML_KEYS)

    def announce(self) -> None:
        given, s = self._given.SOLVER, self.cfg.SOLVER
        if s.REFERENCE_WORLD_SIZE != given.REFERENCE_WORLD_SIZE:
            logger.info(
                "Schedule scaled from %d to %d processes: %d images per iteration, learning rate %g, %d iterations, "
                "warm-up %d, steps %s",
                given.REFERENCE_WORLD_SIZE,
                s.REFERENCE_WORLD_SIZE,
                s.IMS_PER_BATCH,
                s.BASE_LR,
                s.MAX_ITER,
                s.WARMUP_ITERS,
                s.STEPS,
            )
        if self.cfg.VIS_PERIOD or self.cfg.TEST.EXPECTED_RESULTS:
            logger.warning("VIS_PERIOD and TEST.EXPECTED_RESULTS have no effect in the native engine")

    def check_data(self, eval_only: bool) -> None:
        datasets = self.cfg.DATASETS
        register_custom(datasets.CUSTOM)
        for key in ("TEST",) if eval_only else ("TRAIN", "TEST"):
            for name in datasets[key]:
                class_names(name, f"DATASETS.{key}")
        check_classes(self.cfg, datasets.TEST if eval_only else (*datasets.TRAIN, *datasets.TEST))

    def build_model(self) -> nn.Module:
        return build_model(self.cfg)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(self.cfg, model)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        return build_lr_scheduler(self.cfg, optimizer)

    def build_gradient_clipper(self) -> GradientClipper | None:
        return build_gradient_clipper(self.cfg)

    def build_train_loader(self, start_iter: int, seed: int) -> Iterable[list[dict[str, Any]]]:
        return build_train_loader(self.cfg, start_iter=start_iter, seed=seed)

    def test_sets(self) -> list[TestSet]:
        return [
            TestSet(name, partial(build_test_loader, self.cfg, name), partial(build_evaluator, self.cfg, name))
            for name in self.cfg.DATASETS.TEST
        ]

    def draw_predictions(self, model: nn.Module, path: Path) -> Path | None:
        from ..evaluation.predictions import draw_predictions

        return draw_predictions(self.cfg, model, path) if self.cfg.DATASETS.TEST else None

    def dump(self) -> str:
        return self._given.dump()
