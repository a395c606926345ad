"""The import of the user's own Python files, with pyramids or data sets for example, before a configuration is read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError, failing_line, nearby_files

__all__ = ["import_files"]


def import_files(files: Iterable[str | Path], flag: str = "--import") -> None:
    """Import Python files, except those that were imported before.

    A file becomes a module under its own name, unless there is a module of this name. It can import files from its
    folder.

    Args:
        files: paths of the files.
        flag: the flag that names the files, for messages.

    Raises:
        UserError: a file is missing, is not a Python file, or fails when it is run.
    """
    for file in files:
        _import(Path(file).expanduser().resolve(), f"{flag} {file}")


def _import(path: Path, where: str) -> None:
    if any(getattr(module, "__file__", None) == str(path) for module in list(sys.modules.values())):
        return
    if path.suffix != ".py":
        raise UserError(f"{where}: expected a Python file (.py)")
    if not path.is_file():
        raise UserError(f"{where}: there is no such file{nearby_files(path, '*.py')}")
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
        line = failing_line(e, path)
        raise UserError(f"{where}: {f'line {line}: ' if line else ''}{type(e).__name__}: {e}") from e
