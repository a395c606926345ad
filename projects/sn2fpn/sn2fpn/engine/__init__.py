"""Training and evaluation: arguments -> launch -> run. Names load on first use, so `--help` needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ENGINES": "choice",
    "default_argument_parser": "arguments",
    "environment": "setup",
    "import_files": "imports",
    "launch": "processes",
    "main": "entry",
    "prepare": "entry",
    "run": "native",
    "load_config": "setup",
    "default_setup": "setup",
    "Trainer": "trainer",
    "Hook": "hooks",
    "build_optimizer": "solver",
    "build_lr_scheduler": "solver",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
