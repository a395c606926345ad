"""The study's report: Markdown and one self-contained HTML page, from what the cells left on disk.

Names load on first use, so that `--help` needs neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"add_arguments": "command", "main": "command", "write_report": "writing"}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
