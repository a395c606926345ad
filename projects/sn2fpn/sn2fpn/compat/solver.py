"""Detectron2's `solver`: optimizers and learning-rate schedules."""

from __future__ import annotations

from ..engine.solver import LRMultiplier, build_lr_scheduler, build_optimizer
from .absent import absent

__all__ = ["LRMultiplier", "build_lr_scheduler", "build_optimizer"]

__getattr__ = absent(__name__, __all__)
