"""The keys of a study file, and reading it safely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..config.arithmetic import ConfigLoader
from ..engine.choice import ENGINES
from ..errors import UserError, did_you_mean

__all__ = ["read_yaml"]

_METRICS = ["bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/APs", "bbox/APm", "bbox/APl"]

# key -> (kind, default, kind of the items); a default of ... has to be given
_KEYS: dict[str, tuple[type, Any, type | None]] = {
    "NAME": (str, "", None),
    "BASE": (str, ..., None),
    "SET": (dict, {}, None),
    "AXES": (dict, ..., None),
    "EXCLUDE": (list, [], dict),
    "SEEDS": (list, [1], int),
    "BASELINE": (dict, {}, None),
    "METRICS": (list, _METRICS, str),
    "ENGINE": (str, "auto", None),
    "IMPORTS": (list, [], str),
}


class _Loader(ConfigLoader):
    """The configs' safe loader; a key that is given twice is an error, not the last one's value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The values of a study file, with defaults for what it leaves out.

    Raises:
        UserError: no such file, no YAML, an unknown key, a missing one or a value of the wrong kind.
    """
    if not path.is_file():
        nearby = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UserError(f"study file not found: {path}" + (did_you_mean(str(path), nearby) if nearby else ""))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.constructor.ConstructorError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise UserError(f"{path}: line {line}: {e.problem} (study files hold plain values only, each once)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not readable as YAML: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping with {', '.join(_KEYS)}, found {type(content).__name__}")
    for key in content:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
    values = {key: _value(content.get(key), key, path) for key in _KEYS}
    if not values["SEEDS"] or min(values["SEEDS"]) < 0:
        raise UserError(f"{path}: SEEDS: expected numbers from 0 on, found {values['SEEDS']}")
    for key in ("SEEDS", "METRICS"):
        twice = [item for item in values[key] if values[key].count(item) > 1]
        if twice:
            raise UserError(f"{path}: {key}: {twice[0]!r} is named twice")
    if not values["METRICS"]:
        raise UserError(f"{path}: METRICS: expected at least one, e.g. bbox/AP")
    if values["ENGINE"] not in ENGINES:
        raise UserError(f"{path}: ENGINE: unknown {values['ENGINE']!r}{did_you_mean(values['ENGINE'], ENGINES)}")
    return values


def _value(value: Any, key: str, path: Path) -> Any:
    kind, default, items = _KEYS[key]
    if value is None:
        if default is ...:
            raise UserError(f"{path}: {key} is missing")
        return default
    fits = type(value) is kind and (items is None or all(type(item) is items for item in value))
    if not fits:
        of = f" of {_WORDS[items]}" if items else ""
        raise UserError(f"{path}: {key}: expected {_WORDS[kind]}{of}, found {value!r}")
    return value


_WORDS = {str: "text", dict: "key: value pairs", list: "a list", int: "whole numbers"}
