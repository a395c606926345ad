"""Configuration files: YAML of plain values, in which `_BASE_` names the files that a file changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, shortened
from ..shipped import find_file, nearby_names
from .arithmetic import ConfigLoader

__all__ = ["UniqueKeyLoader", "read_file", "read_text", "read_with_base"]

_BASE = "_BASE_"


class UniqueKeyLoader(ConfigLoader):
    """The reader of configurations, for which a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                problem = f"the key {key.value!r} is given twice, first in line {lines[key.value]}"
                raise DuplicateKeyError(None, None, problem, key.start_mark)
            lines[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A key that a YAML file gives twice in the same place."""


def read_with_base(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the mapping of a file, merged over those of its `_BASE_` files, whose paths are relative to the file.

    Where there is no such file, a base is the one of this name that comes with this package.

    Args:
        path: the file; in `_BASE_`, `~` stands for the home directory.
        chain: the files that led to this one.

    Raises:
        UserError: a file is missing, names itself through others, is not a YAML mapping of plain values, or is a Python
            configuration or the record of one.
    """
    if path.resolve() in chain:
        raise UserError(f"{path}: _BASE_ leads in a circle: " + " -> ".join(map(str, [*chain, path])))
    if not path.is_file():
        role = f"{chain[-1]}: _BASE_ names a missing file" if chain else "config file not found"
        raise UserError(f"{role}: {path}{nearby_names(path, 'configs', '*.y*ml')}")
    if path.suffix == ".py":
        raise UserError(f"{path}: expected a YAML configuration, found a Python configuration, which is not taken here")
    content = read_file(path)
    if isinstance(content.get("model"), dict) and "_target_" in content["model"]:
        raise UserError(
            f"{path}: expected configuration keys, found the record of a Python configuration, which only "
            "LazyConfig.load reads; give the Python file that it was made from, with the same key=value changes"
        )
    bases = content.pop(_BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: _BASE_ expects a file or a list of files, found {shortened(repr(bases))}")
    merged: dict[str, Any] = {}
    for base in bases:
        _merge(read_with_base(find_file(base, "configs", path.parent), (*chain, path.resolve())), merged)
    _merge(content, merged)
    return merged


def read_file(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file without its bases; a UserError says that it is none, as in `read_text`."""
    try:
        return read_text(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: expected a text file: {e}") from None


def read_text(text: str, source: str) -> dict[str, Any]:
    """Return the mapping of a YAML text.

    Args:
        text: the text; an empty one is an empty mapping.
        source: the name of the text in messages.

    Raises:
        UserError: the text is not a YAML mapping of plain values, or gives a key twice.
    """
    try:
        content = yaml.load(text, UniqueKeyLoader)
    except DuplicateKeyError as e:
        raise UserError(f"{source}: line {e.problem_mark.line + 1}: {e.problem}") from None
    except yaml.constructor.ConstructorError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise UserError(f"{source}: line {line}: expected plain values: {e.problem}") from None
    except yaml.YAMLError as e:
        raise UserError(f"{source}: the file is not readable as YAML: {e}") from None
    if not isinstance(content, dict | None):
        raise UserError(f"{source}: expected a mapping of configuration keys, found {type(content).__name__}")
    return content or {}


def _merge(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Put the values of `a` over those of `b`, group by group."""
    for key, value in a.items():
        if isinstance(value, dict) and isinstance(b.get(key), dict):
            _merge(value, b[key])
        else:
            b[key] = value
