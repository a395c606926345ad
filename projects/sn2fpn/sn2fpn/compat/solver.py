"""Detectron2's `solver`: optimizers and learning-rate schedules."""

from __future__ import annotations

from ..engine.solver import LRMultiplier, build_lr_scheduler, build_optimizer, parameter_groups
from .absent import absent

__all__ = ["LRMultiplier", "build_lr_scheduler", "build_optimizer", "get_default_optimizer_params"]

__getattr__ = absent(__name__, __all__)

get_default_optimizer_params = parameter_groups
