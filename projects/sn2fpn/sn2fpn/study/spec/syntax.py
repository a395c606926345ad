"""The keys of a study file, how the file is read safely, and the dotted configuration keys in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...config.files import UniqueKeyLoader
from ...config.values import decoded
from ...engine import ENGINES
from ...errors import UserError, did_you_mean
from ...shipped import nearby_names

__all__ = ["DEFAULT_METRICS", "flatten", "nest", "read_yaml"]

DEFAULT_METRICS = ["bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/APs", "bbox/APm", "bbox/APl"]

# key -> (type, default, type of the items); a key whose default is ... must be given
_KEYS: dict[str, tuple[type, Any, type | None]] = {
    "NAME": (str, "", None),
    "BASE": (str, ..., None),
    "SET": (dict, {}, None),
    "AXES": (dict, ..., None),
    "EXCLUDE": (list, [], dict),
    "SEEDS": (list, [1], int),
    "BASELINE": (dict, {}, None),
    "METRICS": (list, DEFAULT_METRICS, str),
    "ENGINE": (str, "auto", None),
    "IMPORTS": (list, [], str),
    "QUESTIONS": (list, [], dict),
    "TUNE": (dict, {}, None),
    "TUNE_SETS": (list, [], str),
    "TUNE_SEED": (int, 0, None),
    "TUNE_SET": (dict, {}, None),
    "TUNED": (dict, {}, None),
}
_WORDS = {str: "text", dict: "key: value pairs", list: "a list", int: "whole numbers"}


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the values of all keys of a study file, with defaults for others; a UserError names the mistake."""
    if not path.is_file():
        raise UserError(f"study file not found: {path}{nearby_names(path, 'studies', '*.y*ml')}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader)
    except yaml.constructor.ConstructorError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise UserError(f"{path}: line {line}: {e.problem} (study files hold plain values only, each once)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: cannot be read as YAML: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping with {', '.join(_KEYS)}, found {type(content).__name__}")
    for key in content:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
    values = {key: _value(content.get(key), key, path) for key in _KEYS}
    _check_values(values, path)
    return values


def _value(value: Any, key: str, path: Path) -> Any:
    kind, default, items = _KEYS[key]
    if value is None:
        if default is ...:
            raise UserError(f"{path}: {key} is missing")
        return default
    if key == "SEEDS" and type(value) is dict:
        return value
    if type(value) is not kind or (items and any(type(item) is not items for item in value)):
        of = f" of {_WORDS[items]}" if items else ""
        raise UserError(f"{path}: {key}: expected {_WORDS[kind]}{of}, found {value!r}")
    return value


def _check_values(values: dict[str, Any], path: Path) -> None:
    for metric in values["METRICS"]:
        if values["METRICS"].count(metric) > 1:
            raise UserError(f"{path}: METRICS: {metric!r} is named twice")
    if not values["METRICS"]:
        raise UserError(f"{path}: METRICS: expected at least one metric, e.g. bbox/AP")
    _check_tuning(values, path)
    if values["ENGINE"] not in ENGINES:
        raise UserError(f"{path}: ENGINE: unknown {values['ENGINE']!r}{did_you_mean(values['ENGINE'], ENGINES)}")


def _check_tuning(values: dict[str, Any], path: Path) -> None:
    for key, given in values["TUNE"].items():
        tried = [_number(value) for value in given] if isinstance(given, list) else []
        if len(tried) < 2 or any(tried.count(v) > 1 for v in tried):
            raise UserError(f"{path}: TUNE.{key}: expected a list of two or more different values, found {given!r}")
        values["TUNE"][key] = tried
    if bool(values["TUNE"]) != bool(values["TUNE_SETS"]):
        given, absent = ("TUNE", "TUNE_SETS") if values["TUNE"] else ("TUNE_SETS", "TUNE")
        raise UserError(
            f"{path}: {given} is given without {absent}; the one says what is tried, the other on which data"
        )
    if values["TUNE_SET"] and not values["TUNE"]:
        raise UserError(f"{path}: TUNE_SET is given without TUNE; it changes the trainings that try values")
    if values["TUNE_SEED"] < 0:
        raise UserError(f"{path}: TUNE_SEED: expected 0 or greater, found {values['TUNE_SEED']}")
    for variant, keys in values["TUNED"].items():
        if not isinstance(keys, dict):
            raise UserError(f"{path}: TUNED.{variant}: expected {{config key: value}}, found {keys!r}")


def _number(value: Any) -> Any:
    """Return the number that a text such as "1e-3" means, which YAML does not read as one, or else the value itself."""
    number = decoded(value)
    return number if type(number) in (int, float) else value


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves by their dotted keys; {SOLVER: {MAX_ITER: 9}} and {SOLVER.MAX_ITER: 9} give the same."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree whose leaves have these dotted keys, as the inverse of `flatten`; no key may also be a group."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{key}: {part} is given a value in the same place, so it cannot be a group of keys")
        node[leaf] = value
    return tree
