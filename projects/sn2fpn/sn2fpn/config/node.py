"""A CfgNode whose errors name the file, the key and the nearest valid key.

It differs from fvcore's CfgNode in three ways: an integer is accepted in place of a float, the keys in `EITHER_TYPE`
accept several types, and YAML is always read safely.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NoReturn

import yaml
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as _CfgNode

from ..errors import UserError, did_you_mean, nearby_files
from .arithmetic import ConfigLoader

__all__ = ["CfgNode"]

EITHER_TYPE: dict[str, tuple[type, ...]] = {"MODEL.SNI.ALPHA": (str, float)}
"""The keys whose values may have several types; yacs knows one type per key."""

_DETECTRON2_ALONE = (
    "MODEL.PANOPTIC_FPN",
    "MODEL.RETINANET",
    "MODEL.ROI_BOX_CASCADE_HEAD",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.SEM_SEG_HEAD",
)


class CfgNode(_CfgNode):
    """A configuration tree with attribute access; see fvcore's CfgNode for the general interface."""

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a YAML file, after the files that its `_BASE_` names.

        Args:
            cfg_filename: path of the file.
            allow_unsafe: exists for fvcore's interface only and must be False.

        Raises:
            UserError: a file is missing, is not a YAML mapping of plain values, or has an unknown key or a value of the
                wrong type.
        """
        if allow_unsafe:
            raise UserError("allow_unsafe is not supported: configuration files are always read safely")
        self._merge(_load_with_base(Path(cfg_filename), ()), str(cfg_filename))

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        """Merge another configuration tree."""
        self._merge(cfg_other, "")

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        """Merge a list `["KEY", value, "KEY.SUB", value, …]`, for example from a command line.

        Raises:
            UserError: a key has no value, a key is unknown, or a value has the wrong type.
        """
        if len(cfg_list) % 2:
            given = " ".join(map(str, cfg_list))
            raise UserError(
                f"configuration keys are changed by KEY VALUE pairs, but {cfg_list[-1]!r} has no value: {given}"
            )
        for full_key, value in zip(cfg_list[::2], cfg_list[1::2]):
            *parents, leaf = str(full_key).split(".")
            node: Any = self
            for depth, part in enumerate(parents):
                if part not in node or not isinstance(node[part], _CfgNode):
                    self._unknown(node, parents[: depth + 1], "command line", full_key)
                node = node[part]
            if leaf not in node:
                self._unknown(node, [*parents, leaf], "command line", full_key)
            node[leaf] = _checked(_decode(value), node[leaf], str(full_key), "command line")

    def _merge(self, other: dict[str, Any], source: str, path: tuple[str, ...] = ()) -> None:
        for key, value in other.items():
            full_path = (*path, str(key))
            if key not in self:
                self._unknown(self, full_path, source)
            if isinstance(self[key], _CfgNode):
                if not isinstance(value, dict):
                    raise UserError(f"{source}: {'.'.join(full_path)} is a group of keys, found {value!r}")
                CfgNode._merge(self[key], value, source, full_path)
            else:
                self[key] = _checked(_decode(copy.deepcopy(value)), self[key], ".".join(full_path), source)

    def _unknown(self, node: Any, path: tuple[str, ...] | list[str], source: str, full_key: str = "") -> NoReturn:
        """Raise a UserError for an unknown key, with the nearest of the keys beside it."""
        siblings = node if isinstance(node, dict) else ()
        where = f"{source}: " if source else ""
        key = full_key or ".".join(path)
        if ".".join(path) in _DETECTRON2_ALONE:
            raise UserError(f"{where}{key} is for a model that only Detectron2 has; add --engine detectron2")
        near = did_you_mean(path[-1], siblings, prefix="".join(f"{part}." for part in path[:-1]))
        raise UserError(f"{where}unknown config key {key!r}{near}")


def _load_with_base(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Return the YAML mapping of a file, merged over its `_BASE_` files, whose paths are relative to the file."""
    path = path.expanduser()
    if path.resolve() in chain:
        raise UserError(f"{path}: _BASE_ leads in a circle: " + " -> ".join(map(str, [*chain, path])))
    if not path.is_file():
        role = f"{chain[-1]}: _BASE_ names a missing file" if chain else "config file not found"
        raise UserError(f"{role}: {path}{nearby_files(path, '*.y*ml')}")
    content = _read_mapping(path)
    bases = content.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _merge_dicts(_load_with_base(path.parent / Path(base).expanduser(), (*chain, path.resolve())), merged)
    _merge_dicts(content, merged)
    return merged


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), ConfigLoader)
    except yaml.constructor.ConstructorError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise UserError(f"{path}: line {line}: expected plain values: {e.problem}") from None
    except yaml.YAMLError as e:
        raise UserError(f"{path}: the file is not readable as YAML: {e}") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: expected a text file: {e}") from None
    if not isinstance(content, dict | None):
        raise UserError(f"{path}: expected a mapping of configuration keys, found {type(content).__name__}")
    return content or {}


def _merge_dicts(a: dict[str, Any], b: dict[str, Any]) -> None:
    for key, value in a.items():
        if isinstance(value, dict) and isinstance(b.get(key), dict):
            _merge_dicts(value, b[key])
        else:
            b[key] = value


def _decode(value: Any) -> Any:
    try:
        return _CfgNode._decode_cfg_value(value)
    except (RecursionError, MemoryError):  # a text of thousands of brackets or signs stays a text
        return value


def _checked(value: Any, old: Any, full_key: str, source: str) -> Any:
    """Return `value`, converted to the type of `old` where nothing is lost.

    Raises:
        UserError: the value has another type.
    """
    either = EITHER_TYPE.get(full_key)
    if either is not None:
        value = float(value) if type(value) is int and float in either else value
        if value is None or type(value) in either:
            return value
    elif old is None or value is None or type(value) is type(old):
        return value
    elif isinstance(value, (list, tuple)) and isinstance(old, (list, tuple)):
        return type(old)(value)
    elif type(value) is int and type(old) is float:
        return float(value)
    expected = " or ".join(t.__name__ for t in either) if either else f"{type(old).__name__} (like {old!r})"
    where = f"{source}: " if source else ""
    raise UserError(f"{where}{full_key} expects {expected}, found {type(value).__name__} {value!r}")
