"""LazyConfig: configurations that are Python files, with Detectron2's rules; omegaconf underneath."""

from __future__ import annotations

import builtins
import inspect
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from .calls import as_config
from .overrides import apply_overrides
from .printing import save_yaml, to_python

__all__ = ["LazyConfig"]


class LazyConfig:
    """Loads, changes and prints configurations written in Python.

    A file is a program, so load only those that you trust. What it leaves in its namespace is the configuration:
    dicts and omegaconf nodes whose names do not start with an underscore. Files import each other relatively,
    `from .common.models import model`, by file name and without packages; every import runs the file anew, so that
    changing what was imported changes it for nobody else.
    """

    @staticmethod
    def load(filename: str | os.PathLike[str], keys: str | Sequence[str] | None = None) -> Any:
        """Load a `.py` file, or a `.yaml` file that `save` wrote.

        Args:
            filename: its path.
            keys: a name to return the object of that name, whatever it is; several names for a tuple of objects;
                None for a DictConfig of all configuration objects.

        Raises:
            UserError: the file is missing, no such kind, wrong syntax, has no such key, or raises.
        """
        path = Path(filename).expanduser()
        if path.suffix not in (".py", ".yaml", ".yml"):
            raise UserError(f"{path}: expected a .py or .yaml file")
        if not path.is_file():
            nearby = [str(p) for p in path.parent.glob(f"*{path.suffix}")]
            raise UserError(f"config file not found: {path}" + (did_you_mean(str(path), nearby) if nearby else ""))
        found = _execute(path, ()) if path.suffix == ".py" else _read_yaml(path)
        if keys is not None:
            names = [keys] if isinstance(keys, str) else keys
            _check_names(found, names, path)
            return found[keys] if isinstance(keys, str) else tuple(found[name] for name in names)
        return as_config({k: v for k, v in found.items() if _is_public(k) and isinstance(v, DictConfig | ListConfig)})

    @staticmethod
    def load_rel(filename: str | os.PathLike[str], keys: str | Sequence[str] | None = None) -> Any:
        """As `load`, with a path relative to the file of the caller."""
        caller = inspect.stack()[1].filename
        return LazyConfig.load(Path(caller).parent / filename, keys)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
        """Apply `key=value` texts in place, see `sn2fpn.config.overrides`; returns `cfg`."""
        return apply_overrides(cfg, overrides)

    @staticmethod
    def save(cfg: DictConfig, filename: str | os.PathLike[str]) -> None:
        """Write YAML that `load` reads back; logs a warning for objects that YAML cannot hold."""
        save_yaml(cfg, filename)

    @staticmethod
    def to_py(cfg: DictConfig, prefix: str = "cfg.") -> str:
        """The configuration as readable Python-like text, interpolations resolved."""
        return to_python(cfg, prefix)


class _ConfigFileError(UserError):
    """Names its file already, so the files that import it add nothing."""


def _execute(path: Path, importers: tuple[Path, ...]) -> dict[str, Any]:
    """The namespace that a file leaves; its dicts are DictConfigs."""
    if path.resolve() in importers:
        chain = " -> ".join(map(str, [*importers, path]))
        raise _ConfigFileError(f"{path}: config files import each other in a circle: {chain}")
    # the file's own __import__, rather than a patched one for the whole process
    hook = _importer(path, (*importers, path.resolve()))
    namespace: dict[str, Any] = {
        "__file__": str(path),
        "__name__": path.stem,
        "__package__": "lazy_config",
        "__builtins__": {**vars(builtins), "__import__": hook},
    }
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as e:
        line = f" line {e.lineno}:" if isinstance(e, SyntaxError) else ""
        raise _ConfigFileError(f"{path}:{line} not valid Python: {getattr(e, 'msg', e)}") from e
    try:
        exec(code, namespace)
    except _ConfigFileError:
        raise
    except Exception as e:
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
        what = str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"
        raise _ConfigFileError(f"{path}: line {lines[-1] if lines else '?'}: {what}") from e
    for name, value in namespace.items():
        if _is_public(name) and isinstance(value, dict):
            namespace[name] = as_config(value)
    return namespace


def _importer(path: Path, importers: tuple[Path, ...]) -> Callable[..., Any]:
    """`__import__` for a config file: relative imports run other config files, all others are Python's own."""

    def import_(
        name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0
    ) -> Any:
        if level == 0:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        folder = path.resolve().parents[level - 1]
        wanted = folder.joinpath(*name.split(".")).with_suffix(".py") if name else folder
        if not wanted.is_file():
            found = "a folder" if wanted.with_suffix("").is_dir() else "no file"
            near = did_you_mean(wanted.name, [p.name for p in wanted.parent.glob("*.py")]) if name else ""
            raise UserError(f"relative imports are of config files by name; {wanted} is {found}{near}")
        module = ModuleType(name)
        module.__dict__.update(_execute(wanted, importers))
        _check_names(module.__dict__, [n for n in fromlist or () if n != "*"], wanted)
        return module

    return import_


def _check_names(found: Mapping[str, Any], names: Iterable[str], path: Path) -> None:
    for name in names:
        if name not in found:
            raise UserError(f"{path} has no {name!r}{did_you_mean(name, filter(_is_public, map(str, found)))}")


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _read_yaml(path: Path) -> DictConfig:
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not readable as YAML with plain values: {e}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: expected a mapping of config keys, found a list")
    content._set_flag("allow_objects", True)
    return content
