"""Training and evaluation, from the command line to the processes of a run.

Names are imported when they are first used, so that `train_net.py --help` does not need to import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "ENGINES": "choice",
    "default_argument_parser": "arguments",
    "environment": "versions",
    "evaluation_argument_parser": "arguments",
    "evaluation_main": "entry",
    "launch": "processes",
    "main": "entry",
    "prepare": "entry",
    "run": "native",
    "load_config": "config",
    "default_setup": "setup",
    "Trainer": "trainer",
    "Hook": "hooks",
    "build_optimizer": "solver",
    "build_lr_scheduler": "solver",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
