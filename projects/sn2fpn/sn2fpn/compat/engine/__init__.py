"""Detectron2's `engine`: the trainer, the predictor, hooks and the start of a script."""

from __future__ import annotations

from ...engine import default_argument_parser
from ..absent import absent
from . import hooks
from .defaults import DefaultPredictor, DefaultTrainer, default_setup
from .hooks import HookBase
from .launch import launch

__all__ = [
    "DefaultPredictor",
    "DefaultTrainer",
    "HookBase",
    "default_argument_parser",
    "default_setup",
    "hooks",
    "launch",
]

__getattr__ = absent(__name__, __all__)
