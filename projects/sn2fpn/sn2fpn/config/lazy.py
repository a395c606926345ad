"""LazyConfig: configurations that are Python files, with Detectron2's rules, on top of omegaconf."""

from __future__ import annotations

import builtins
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean, failing_line
from ..shipped import find_file, nearby_names
from .calls import TARGET, as_config, restrict_targets
from .overrides import apply_overrides
from .printing import save_yaml, to_python
from .yaml_limits import check_yaml

__all__ = ["LazyConfig"]


class LazyConfig:
    """Loads, changes and prints configurations that are written in Python.

    A file is a program, so load only files that you trust. The configuration consists of the dicts and omegaconf nodes
    that the file leaves in its namespace under names without a leading underscore. Files import each other by
    relative file names, as in `from .common import model`, without packages. Every import runs the file anew, so
    that changes to what was imported have no effect elsewhere.
    """

    apply_overrides = staticmethod(apply_overrides)
    save = staticmethod(save_yaml)
    to_py = staticmethod(to_python)

    @staticmethod
    def load(filename: str | os.PathLike[str], keys: str | Sequence[str] | None = None, *, trust: bool = False) -> Any:
        """Load a `.py` file, which is run, or a `.yaml` file that `save` wrote, which is data.

        Args:
            filename: path of the file, or the name of one that comes with this package, see `find_file`.
            keys: a name, to return the object of this name, of whatever type; several names, to return a tuple of
                objects; None, to return the whole configuration.
            trust: whether the nodes of a `.yaml` file may call any function. By default, `instantiate` refuses
                targets that models, data and schedules are not built from.

        Raises:
            UserError: the file is missing, is of another kind, has no such name, or fails when it is run.
        """
        path = find_file(filename, "configs")
        if path.suffix not in (".py", ".yaml", ".yml"):
            raise UserError(f"{path}: expected a .py or .yaml file")
        if not path.is_file():
            raise UserError(f"config file not found: {path}{nearby_names(path, 'configs', f'*{path.suffix}')}")
        found = vars(_execute(path, ())) if path.suffix == ".py" else _read_yaml(path, trust)
        if keys is None and isinstance(found, dict):
            return as_config({k: v for k, v in found.items() if _public(k) and isinstance(v, DictConfig | ListConfig)})
        if keys is None:
            return found
        names = [keys] if isinstance(keys, str) else keys
        _check_names(found, names, path)
        return found[keys] if isinstance(keys, str) else tuple(found[name] for name in names)

    @staticmethod
    def load_rel(filename: str | os.PathLike[str], keys: str | Sequence[str] | None = None) -> Any:
        """Load a file whose path is relative to the file of the caller; see `load`."""
        return LazyConfig.load(Path(inspect.stack()[1].filename).parent / filename, keys)


class _ConfigFileError(UserError):
    """An error whose message names the config file already, so that files which import this one add nothing."""


def _execute(path: Path, importers: tuple[Path, ...]) -> ModuleType:
    """Run a config file and return it as a module, in which dicts are DictConfigs."""
    chain = (*importers, path.resolve())
    if path.resolve() in importers:
        raise _ConfigFileError(f"{path}: config files import each other in a circle: {' -> '.join(map(str, chain))}")
    module = ModuleType(path.stem)
    # the file has an __import__ of its own; Python's stays as it is for the rest of the process
    module.__dict__.update(
        __file__=str(path), __builtins__={**vars(builtins), "__import__": _importer(path.resolve(), chain)}
    )
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    except _ConfigFileError:
        raise
    except Exception as e:
        problem = str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {getattr(e, 'msg', e)}"
        raise _ConfigFileError(f"{path}: line {failing_line(e, path) or '?'}: {problem}") from e
    vars(module).update({k: as_config(v) for k, v in vars(module).items() if _public(k) and isinstance(v, dict)})
    return module


def _importer(path: Path, chain: tuple[Path, ...]) -> Callable[..., Any]:
    """Return the `__import__` of a config file: relative imports run config files, all others are Python's."""

    def import_(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0:
            return builtins.__import__(name, globals, locals, fromlist, level)
        wanted = path.parents[level - 1].joinpath(*name.split("."))
        file = wanted.with_name(f"{wanted.name}.py")
        if not name or not file.is_file():
            found = "a folder" if wanted.is_dir() else "no file"
            near = did_you_mean(file.name, [p.name for p in file.parent.glob("*.py")]) if name else ""
            raise UserError(
                f"relative imports are of config files by name; {file if name else wanted} is {found}{near}"
            )
        module = _execute(file, chain)
        _check_names(vars(module), [n for n in fromlist or () if n != "*"], file)
        return module

    return import_


def _check_names(found: Mapping[str, Any], names: Iterable[str], path: Path) -> None:
    for name in names:
        if name not in found:
            raise UserError(f"{path} has no {name!r}{did_you_mean(name, filter(_public, map(str, found)))}")


def _public(name: str) -> bool:
    return not name.startswith("_")


def _read_yaml(path: Path, trust: bool) -> DictConfig:
    try:
        check_yaml(path.read_text(encoding="utf-8"))
        config = as_config(OmegaConf.load(path))
        pyramid = OmegaConf.select(config, "model.backbone")
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError, RecursionError) as e:
        raise UserError(f"{path}: not readable as a YAML mapping of plain values: {e}") from None
    if isinstance(pyramid, DictConfig) and pyramid.get(TARGET) == "sn2fpn.pyramids.IHP" and "filter_name" in pyramid:
        pyramid["filter"] = pyramid.pop("filter_name")  # the argument's name in older configurations
    if not trust:
        restrict_targets(config)
    return config
