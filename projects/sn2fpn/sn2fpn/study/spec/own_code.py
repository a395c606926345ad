"""The user's own code that IMPORTS brings into a study: its files with their hashes, and whether cells share them."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path

from ...checkpoint.last import read_last
from ...errors import UserError
from ...imports import module_of
from ...locks import is_locked
from ..folder import CellFolder
from .study import Study

__all__ = ["check_code", "code_of", "code_versions", "own_code"]

_PACKAGE = Path(__file__).parents[2]
_LIBRARIES = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_INSTALLED = {"site-packages", "dist-packages"}
_SHOWN = 4  # cells of a file in a message


def own_code(files: Iterable[Path]) -> dict[str, str]:
    """Return the hashes of files of the user's own code by their names, such as "pyramid.py" and "mine/gate.py".

    These are the given files, and the modules outside of this package, the standard library and the installed packages
    that they import, directly or through each other, at the top or inside of functions. Of their packages, modules that
    have been imported in another way count as well. Modules are named as in an import, so that the names are the same
    on all machines. Where two files have one name, both hashes are given, with a space between them.

    Args:
        files: Python files, or folders of Python packages, that have been imported.
    """
    return _hashes(_own_files(files))


def _hashes(names: Mapping[Path, str]) -> dict[str, str]:
    hashes: dict[str, list[str]] = {}
    for path, name in names.items():
        hashes.setdefault(name, []).append(hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    return {name: " ".join(sorted(found)) for name, found in sorted(hashes.items())}


def _own_files(files: Iterable[Path]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    waiting = [start for file in files for start in _starts(file)]
    while waiting:
        path, name, package = waiting.pop(0)
        if path not in found:
            found[path] = name
            waiting += [_described(spec) for spec in _imported(path, package) if _is_own(spec)]
    return found


def _starts(file: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield a file as `_described` does and, of a file in a package, the modules of the package."""
    path, parts = module_of(file)
    yield _named(path, parts, path.name == "__init__.py")
    if len(parts) > 1 or path.name == "__init__.py":
        yield from (_described(spec) for spec in _find(".".join(parts)) if _is_own(spec))


def _described(spec: ModuleSpec) -> tuple[Path, str, str]:
    """Return a module's file, its name as a path, and the package that its relative imports start from."""
    path = Path(spec.origin or "").resolve()
    return _named(path, spec.name.split("."), spec.submodule_search_locations is not None)


def _named(path: Path, parts: list[str], is_package: bool) -> tuple[Path, str, str]:
    if is_package:
        return path, "/".join([*parts, path.name]), ".".join(parts)
    return path, "/".join(parts) + path.suffix, ".".join(parts[:-1])


def _imported(path: Path, package: str) -> Iterator[ModuleSpec]:
    """Yield the modules that a file imports, with the packages that they lie in."""
    try:
        names = list(_imported_names(path, package)) if path.suffix == ".py" else []
    except (SyntaxError, ValueError, ImportError):  # of a file that is imported by a function that was never called
        return
    for name in dict.fromkeys(names):
        yield from _find(name)


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Yield the dotted names that the import statements of a file have, of which some may not be modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def _find(name: str) -> Iterator[ModuleSpec]:
    """Yield the modules on the way to a dotted name, and the loaded ones of its package if that is the user's own."""
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):  # of a module that has no spec, such as a program
        return
    if spec is None or not (_is_own(spec) or spec.origin is None):  # a package without __init__.py has no origin
        return
    loaded = [module for key, module in list(sys.modules.items()) if key.startswith(f"{top}.")]
    yield from filter(None, (getattr(module, "__spec__", None) for module in loaded))
    while spec is not None:
        yield spec
        if not rest or spec.submodule_search_locations is None:
            return
        spec = PathFinder.find_spec(f"{spec.name}.{rest.pop(0)}", spec.submodule_search_locations)  # runs no code


def _is_own(spec: ModuleSpec) -> bool:
    if not spec.has_location or spec.origin is None or not Path(spec.origin).is_file():
        return False
    path = Path(spec.origin).resolve()
    return _INSTALLED.isdisjoint(path.parts) and not any(p in path.parents for p in (_PACKAGE, *_LIBRARIES))


def code_of(place: CellFolder) -> dict[str, str]:
    """Return the files of `own_code` that a cell was trained with, {} if nothing of it is trained or none are known."""
    begun = place.is_finished or bool(read_last(place.path)) or is_locked(place.lock)
    return place.identity().get("imports", {}) if begun else {}


def code_versions(cells: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, list[str]]]:
    """Return {file: {hash: [cell, …]}} of cells with their files; cells that do not have a file do not count for it."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell, files in cells.items():
        for file, version in files.items():
            found.setdefault(file, {}).setdefault(version, []).append(cell)
    return found


def check_code(study: Study, folder: Path) -> None:
    """Raise a UserError if cells in the study's folder were trained with other code of IMPORTS, and say what to do.

    Files that were added do not count, nor do cells of earlier versions, which have no hashes.
    """
    names = _own_files(study.imports)
    now, paths = _hashes(names), {name: path for path, name in names.items()}
    lines = []
    for file, versions in code_versions({c.name: code_of(CellFolder(folder, c)) for c in study.cells}).items():
        known = set(now.get(file, "").split())
        cells = [cell for version, names in versions.items() if not set(version.split()) <= known for cell in names]
        if cells:
            what = "has changed" if file in paths else "is no longer loaded"
            more = f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""
            lines.append(f"  {paths.get(file, file)} {what}: {', '.join(cells[:_SHOWN])}{more}")
    if lines:
        raise UserError(
            f"{study.path}: IMPORTS: these cells in {folder} were trained with other code than that of now:\n"
            + "\n".join(lines)
            + "\nThey would not be comparable with new ones. Put the old code back; or keep both, by giving the study "
            "another NAME or another --output; or remove these cells' folders to train them again. Code that only new "
            "variants need can be a further file of IMPORTS"
        )
