"""Detectron2's names for what the other rooms have, so that a script runs after a change of its import lines.

Every module here mirrors the one of Detectron2 that has its name: `from detectron2.engine import DefaultTrainer`
becomes `from sn2fpn.compat.engine import DefaultTrainer`. The classes are thin: they take Detectron2's arguments and
call this package. The import of a name or a module that is not offered says what to use instead, see `absent.py`. The
guide is docs/from_detectron2.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .absent import absent, answer_imports

__all__ = [
    "checkpoint",
    "config",
    "data",
    "engine",
    "evaluation",
    "layers",
    "model_zoo",
    "modeling",
    "solver",
    "structures",
    "utils",
]

_absent = absent(__name__, __all__)
answer_imports()


def __getattr__(name: str) -> Any:
    """Import a module when it is first used, as in `import sn2fpn.compat as detectron2`."""
    if name == "__version__":
        return import_module("sn2fpn").__version__
    return import_module(f".{name}", __name__) if name in __all__ else _absent(name)
