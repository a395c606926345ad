"""Recipes, which make the parts of a run. The trainer knows recipes, not the configurations that they come from."""

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
from ..config.ranges import check_ranges
from ..data import (
    SAMPLERS,
    build_mapper,
    build_test_loader,
    build_train_loader,
    check_classes,
    check_registered,
    class_names,
    register_custom,
)
from ..errors import check_choice
from ..evaluation import build_evaluator, check_evaluator, score_names
from ..modeling import build_model, build_multi_view, cascade_stages, loss_names
from ..modeling.build import check_trainable
from .config import remarks, scale_to_world_size
from .options import YAML_KEYS, RunOptions, read_options
from .solver import GradientClipper, LRMultiplier, build_gradient_clipper, build_lr_scheduler, build_optimizer
from .testing import TestSet, metric_names

__all__ = ["CfgRecipe", "Recipe"]

logger = logging.getLogger(__name__)


class Recipe(ABC):
    """Makes the parts of a run on request, after the processes have joined and the seed has been set.

    Attributes:
        options: the options of the run.
    """

    options: RunOptions

    def announce(self) -> None:  # noqa: B027 - optional
        """Log what a user should know about the configuration before the run; nothing by default."""

    @abstractmethod
    def check_settings(self, eval_only: bool) -> None:
        """Raise a UserError for a mistake in what the recipe makes of the configuration before it reads any data."""

    @abstractmethod
    def metrics(self) -> list[str] | None:
        """Return the names of the metrics that an evaluation will give, such as "bbox/AP", or None if not known."""

    @abstractmethod
    def on_device(self, device: str) -> Recipe:
        """Return the same recipe for a model on another device."""

    @abstractmethod
    def check_data(self, eval_only: bool) -> None:
        """Register the data sets of the configuration, and raise a UserError if they do not suit the model."""

    def class_names(self) -> list[str]:
        """Return the names of the classes of the training data, or an empty list if they are not known."""
        return []

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return the model with fresh weights, on its device and in training mode."""

    def with_augmentation(self, model: nn.Module) -> nn.Module | None:
        """Return the model with test-time augmentation, or None if the configuration asks for none."""
        return None

    @abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the model's trainable parameters."""

    @abstractmethod
    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        """Return the learning-rate schedule, which is stepped after every iteration."""

    @abstractmethod
    def build_gradient_clipper(self) -> GradientClipper | None:
        """Return the function that clips gradients before a step, or None."""

    @abstractmethod
    def build_train_loader(self, start_iter: int, seed: int) -> Iterable[list[dict[str, Any]]]:
        """Return the endless batches of this process, starting with that of iteration `start_iter`."""

    @abstractmethod
    def test_sets(self) -> list[TestSet]:
        """Return the data sets to evaluate on."""

    @abstractmethod
    def draw_predictions(self, model: nn.Module, path: Path) -> Path | None:
        """Draw predictions beside the ground truth and return the picture's path, or None without a data set."""

    @abstractmethod
    def dump(self) -> str:
        """Return the whole configuration as YAML."""


class CfgRecipe(Recipe):
    """The recipe of a YAML configuration.

    Args:
        cfg: the configuration; its schedule is scaled if SOLVER.REFERENCE_WORLD_SIZE is set.
        world_size: number of processes of the run; None takes that of the present ones.

    Raises:
        UserError: a value has the wrong type or is out of its range.
    """

    def __init__(self, cfg: CfgNode, world_size: int | None = None) -> None:
        cfg = cfg.clone()
        cfg.freeze()
        self._given = cfg
        self.cfg = scale_to_world_size(cfg, world_size or comm.get_world_size())
        self._world_size = world_size
        check_ranges(self.cfg)
        self.options = read_options(self.cfg, YAML_KEYS)

    def announce(self) -> None:
        given, s = self._given.SOLVER, self.cfg.SOLVER
        if s.REFERENCE_WORLD_SIZE != given.REFERENCE_WORLD_SIZE:
            logger.info(
                "The schedule was scaled from %d to %d processes: %d images per iteration, learning rate %g, "
                "%d iterations, warm-up %d, steps %s",
                given.REFERENCE_WORLD_SIZE,
                s.REFERENCE_WORLD_SIZE,
                s.IMS_PER_BATCH,
                s.BASE_LR,
                s.MAX_ITER,
                s.WARMUP_ITERS,
                s.STEPS,
            )
        for line in remarks(self.cfg):
            logger.warning("%s", line)
        if self.cfg.VIS_PERIOD or self.cfg.TEST.EXPECTED_RESULTS:
            logger.warning("VIS_PERIOD and TEST.EXPECTED_RESULTS have no effect in the native engine")

    def check_settings(self, eval_only: bool) -> None:
        if not eval_only:
            check_trainable(self.cfg)
        check_choice("DATALOADER.SAMPLER_TRAIN", self.cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS)
        for is_train in (False,) if eval_only else (True, False):  # an evaluation needs no function of the training's
            build_mapper(self.cfg, is_train)
        register_custom(self.cfg.DATASETS.CUSTOM)
        for key, name in self._data_sets(eval_only):
            check_registered(name, key)
        check_evaluator(self.cfg)

    def metrics(self) -> list[str]:
        scores = {name: score_names(self.cfg, name) for name in self.cfg.DATASETS.TEST}
        losses = loss_names(self.cfg.MODEL.MASK_ON, cascade_stages(self.cfg))
        return metric_names(scores, losses if self.options.val_loss else ())

    def on_device(self, device: str) -> CfgRecipe:
        cfg = self._given.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = device
        return CfgRecipe(cfg, self._world_size)

    def _data_sets(self, eval_only: bool) -> list[tuple[str, str]]:
        """Return the keys that name data sets which the run uses, each with one name."""
        keys = ("TEST",) if eval_only else ("TRAIN", "TEST")
        return [(f"DATASETS.{key}", name) for key in keys for name in self.cfg.DATASETS[key]]

    def check_data(self, eval_only: bool) -> None:
        datasets = self.cfg.DATASETS
        register_custom(datasets.CUSTOM)
        for key, name in self._data_sets(eval_only):
            class_names(name, key)
        check_classes(self.cfg, datasets.TEST if eval_only else (*datasets.TRAIN, *datasets.TEST))

    def class_names(self) -> list[str]:
        return class_names(self.cfg.DATASETS.TRAIN[0]) if self.cfg.DATASETS.TRAIN else []

    def build_model(self) -> nn.Module:
        return build_model(self.cfg)

    def with_augmentation(self, model: nn.Module) -> nn.Module | None:
        return build_multi_view(self.cfg, model) if self.cfg.TEST.AUG.ENABLED else None

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
