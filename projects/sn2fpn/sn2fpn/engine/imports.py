"""Python files of the user, imported before a configuration is read: pyramids, data sets and the like of their own."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError, did_you_mean

__all__ = ["import_files"]


def import_files(files: Iterable[str | Path], flag: str = "--import") -> None:
    """Import Python files; what was imported already is left alone.

    A file becomes the module of its name where there is none of that name; files beside it can be imported.

    Args:
        flag: what names the files, for messages.

    Raises:
        UserError: a file is missing, no Python file, or raises.
    """
    for file in files:
        _import(Path(file).expanduser().resolve(), f"{flag} {file}")


def _import(path: Path, where: str) -> None:
    if any(getattr(module, "__file__", None) == str(path) for module in list(sys.modules.values())):
        return
    if path.suffix != ".py":
        raise UserError(f"{where}: expected a Python file (.py)")
    if not path.is_file():
        nearby = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"{where}: no such file" + (did_you_mean(str(path), nearby) if nearby else ""))
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[name]
        raise UserError(f"{where}: {_place(e, path)}{type(e).__name__}: {e}") from e


def _place(error: Exception, path: Path) -> str:
    """ "line 3: ", the last line of the file that was being run."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: " if error.filename == str(path) else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""
