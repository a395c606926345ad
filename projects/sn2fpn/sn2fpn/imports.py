"""The import of the user's own Python files, with pyramids or data sets for example, before a configuration is read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError, failing_line, nearby_files

__all__ = ["files_to_run", "import_files", "module_of"]

_INIT = "__init__.py"


def import_files(files: Iterable[str | Path], flag: str = "--import") -> None:
    """Import Python files, except those that were imported before.

    A file becomes a module under its own name, unless there is a module of this name. It can import files from its
    folder. A file of a package, which is a folder with an `__init__.py`, is imported as a part of the package: as
    "mine.gated" for `mine/gated.py`, and as "mine" for the folder itself.

    Args:
        files: paths of the files, or of the folders of packages.
        flag: the flag that names the files, for messages.

    Raises:
        UserError: a file is missing, is not a Python file, or fails when it is run, or another package has the name.
    """
    for file in files:
        _import(_resolved(file), f"{flag} {file}")


def files_to_run(file: str | Path) -> list[Path]:
    """Return the files that the import of a path may run: itself and, in a package, all files of the package."""
    root, parts = _place(_resolved(file))
    return [Path(file), *(sorted((root / parts[0]).rglob("*.py")) if parts else ())]


def module_of(file: str | Path) -> tuple[Path, list[str]]:
    """Return the file that the import of a path runs, and the parts of the name of its module."""
    path = _resolved(file)
    return path, _place(path)[1] or [path.stem]


def _resolved(file: str | Path) -> Path:
    """Return the whole path of a file, which is `__init__.py` for the folder of a package."""
    path = Path(file).expanduser().resolve()
    return path / _INIT if (path / _INIT).is_file() else path


def _place(path: Path) -> tuple[Path, list[str]]:
    """Return the folder that holds the package of a file, and the parts of the file's name; none without a package."""
    parts = [] if path.name == _INIT else [path.stem]
    folder = path.parent
    while (folder / _INIT).is_file() and folder.name:
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, parts if folder != path.parent else []


def _import(path: Path, where: str) -> None:
    if any(getattr(module, "__file__", None) == str(path) for module in list(sys.modules.values())):
        return
    if path.suffix != ".py":
        raise UserError(f"{where}: expected a Python file (.py), or the folder of a package with an {_INIT}")
    if not path.is_file():
        raise UserError(f"{where}: there is no such file{nearby_files(path, '*.py')}")
    root, parts = _place(path)
    if parts:
        _check_name(root / parts[0], where)
    for folder in (str(root), str(path.parent)):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        if parts:
            _import_part(path, root, parts)
        else:
            _run_as(path.stem if path.stem not in sys.modules else f"{path.stem}_{abs(hash(path)):x}", path)
    except Exception as e:
        line = failing_line(e, path)
        raise UserError(f"{where}: {f'line {line}: ' if line else ''}{type(e).__name__}: {e}") from e


def _check_name(package: Path, where: str) -> None:
    """Refuse a package while another one has its name, because Python knows one package of a name."""
    other = sys.modules.get(package.name)
    place = getattr(other, "__file__", None)
    if other and not (place and Path(place).resolve() == package / _INIT):
        raise UserError(
            f"{where}: {place or 'another module'} has the name {package.name!r}; rename the folder {package}"
        )


def _import_part(path: Path, root: Path, parts: list[str]) -> None:
    """Import a file as a part of its package."""
    if parts[0] not in sys.modules:  # by its place, since an installed package may have the same name
        _run_as(parts[0], root / parts[0] / _INIT)
    module = importlib.import_module(".".join(parts))
    if path.name != _INIT:
        sys.modules.setdefault(path.stem, module)  # for files beside it that name it without the package


def _run_as(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception:
        del sys.modules[name]
        raise
