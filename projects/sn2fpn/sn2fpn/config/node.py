"""A CfgNode whose errors name the file, the key and the nearest valid key.

It differs from fvcore's CfgNode in these ways: an integer is accepted in place of a float, the keys in `EITHER_TYPE`
accept several types, null is refused where the default is a value, a closed configuration refuses new keys and values
of another type also in Python, and YAML is always read safely and has each key once.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as _CfgNode

from ..errors import UserError, did_you_mean, nearby_files, shortened
from ..signatures import fits, type_words
from .arithmetic import ConfigLoader
from .own_sets import OWN_SETS, check_quotes, named_entries

__all__ = ["CfgNode", "UniqueKeyLoader"]

EITHER_TYPE: dict[str, Any] = {"MODEL.SNI.ALPHA": str | float | None, "SOLVER.WEIGHT_DECAY_BIAS": float | None}
"""The keys whose values may have several types; yacs knows one type per key."""

_DETECTRON2_ALONE = ("MODEL.PANOPTIC_FPN", "MODEL.RETINANET", "MODEL.ROI_KEYPOINT_HEAD", "MODEL.SEM_SEG_HEAD")


_PATH = "__path__"  # the attribute with which a closed group knows its key


class CfgNode(_CfgNode):
    """A configuration tree with attribute access; see fvcore's CfgNode for the general interface.

    A new tree is open: every assignment declares a key. `close()` ends that. In a closed tree an assignment is checked
    as a file is, and it refuses unknown keys. To add keys of your own, assign a group, which is open, or open the tree:

        cfg.MODEL.MYTHING = CfgNode()      # a new group
        cfg.MODEL.MYTHING.WIDTH = 3
        cfg.set_new_allowed(True)          # or: new keys anywhere, as in fvcore
        cfg.SOLVER.BETA = 0.9
        cfg.set_new_allowed(False)
    """

    def close(self, path: str = "") -> CfgNode:
        """Let assignments in this tree change known keys only, and return the tree. Merging refuses new keys anyway.

        Args:
            path: the full key of this group.
        """
        self.__dict__[_PATH] = path
        for key, value in self.items():
            if isinstance(value, CfgNode):
                value.close(f"{path}.{key}".lstrip("."))
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a key.

        Raises:
            UserError: the tree is closed, and there is no such key, or it has a value of another type.
            AttributeError: the tree is frozen.
        """
        super().__setattr__(name, value if self.is_frozen() else self._checked_assignment(name, value))

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a key as an attribute does, but also in a frozen tree, as in fvcore.

        Raises:
            UserError: the tree is closed, and there is no such key, or it has a value of another type.
        """
        super().__setitem__(name, self._checked_assignment(name, value))

    def update(self, *others: Any, **values: Any) -> None:
        """Set several keys as `__setitem__` does."""
        for key, value in dict(*others, **values).items():
            self[key] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value of a key, which is set as `__setitem__` does if there is none."""
        if name not in self:
            self[name] = default
        return self[name]

    def __ior__(self, other: Any) -> CfgNode:  # type: ignore[override, misc]
        self.update(other)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CfgNode:
        # By default, a copy is closed before it gets its keys.
        copied = memo[id(self)] = type(self)()
        dict.update(copied, copy.deepcopy(dict(self), memo))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _checked_assignment(self, name: str, value: Any) -> Any:
        """Return the value to set in this tree, which is checked if the tree is closed."""
        path = self.__dict__.get(_PATH)
        if path is None or str(name).startswith("COMPUTED_"):
            return value
        key = f"{path}.{name}".lstrip(".")
        if name in self and not isinstance(self[name], _CfgNode):
            return _checked(value, self[name], key, "")
        if name in self and not isinstance(value, dict):
            raise UserError(f"{key} is a group of keys, found {value!r}")
        if name not in self and not isinstance(value, _CfgNode) and not self.is_new_allowed():
            near = did_you_mean(str(name), self, prefix=key.removesuffix(str(name)))
            advice = "a key of your own goes into a new CfgNode, or needs cfg.set_new_allowed(True) before it"
            raise UserError(f"unknown config key {key!r}{near} ({advice})")
        return CfgNode(value) if type(value) is dict else value

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
        check_quotes(cfg_list)
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
            if isinstance(node[leaf], _CfgNode):
                raise UserError(f"command line: {full_key} is a group of keys, found {shortened(repr(value))}")
            node[leaf] = _checked(_decode(value), node[leaf], str(full_key), "command line")

    def _merge(
        self, other: dict[str, Any], source: str, path: tuple[str, ...] = (), root: CfgNode | None = None
    ) -> None:
        root = self if root is None else root
        for key, value in other.items():
            full_path = (*path, str(key))
            if key not in self:
                root._unknown(self, full_path, source)
            if isinstance(self[key], _CfgNode):
                if not isinstance(value, dict):
                    raise UserError(f"{source}: {'.'.join(full_path)} is a group of keys, found {value!r}")
                CfgNode._merge(self[key], value, source, full_path, root)
            else:
                self[key] = _checked(_decode(copy.deepcopy(value)), self[key], ".".join(full_path), source)

    def _unknown(self, node: Any, path: tuple[str, ...] | list[str], source: str, full_key: str = "") -> NoReturn:
        """Raise a UserError for an unknown key, with the key that has its name elsewhere or the nearest beside it."""
        where = f"{source}: " if source else ""
        key = full_key or ".".join(path)
        if ".".join(path) in _DETECTRON2_ALONE:
            raise UserError(f"{where}{key} is for a model that only Detectron2 has; add --engine detectron2")
        prefix = "".join(f"{part}." for part in path[:-1])
        if key.upper() in _full_keys(self):
            raise UserError(f"{where}unknown config key {key!r}; did you mean {key.upper()!r}?")
        elsewhere = [found for found in _full_keys(self) if found.rpartition(".")[2] == path[-1]]
        if len(elsewhere) == 1:
            near = f"; did you mean {elsewhere[0]!r}?"
        else:
            near = did_you_mean(path[-1], node if isinstance(node, dict) else (), prefix=prefix)
        raise UserError(f"{where}unknown config key {key!r}{near}")


def _full_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the full keys of a tree, those of groups included."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, _CfgNode):
            yield from _full_keys(value, f"{prefix}{key}.")


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


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader)
    except DuplicateKeyError as e:
        raise UserError(f"{path}: line {e.problem_mark.line + 1}: {e.problem}") from None
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
    except (AssertionError, TypeError):  # yacs makes no tree of a mapping with dates or with numbers as keys
        return value


def _checked(value: Any, old: Any, full_key: str, source: str) -> Any:
    """Return `value`, converted to the type of `old` where nothing is lost.

    Raises:
        UserError: the value has another type.
    """
    where = f"{source}: {full_key}".removeprefix(": ")
    value = _as_float(value) if type(old) is float or full_key in EITHER_TYPE else value
    value = named_entries(value, where) if full_key == OWN_SETS else value
    if (bits := _longest(value)) > 64:  # no tensor and no seed can hold such a number
        raise UserError(f"{where} expects numbers that fit into 64 bits, found one of {bits} bits")
    if full_key in EITHER_TYPE:
        if fits(value, EITHER_TYPE[full_key]):
            return value
        expected = type_words(EITHER_TYPE[full_key])
    else:
        if isinstance(value, (list, tuple)) and isinstance(old, (list, tuple)):
            converted = _sequence_like(value, old)
        elif old is None or type(value) is type(old):
            converted = value
        else:
            converted = ...
        if converted is not ... and _kinds(converted) <= (_kinds(old) or _kinds(converted)):
            return converted
        expected = f"{type_words(type(old))} (such as {old!r})"
    raise UserError(f"{where} expects {expected}, found {shortened(repr(value))}")


def _sequence_like(value: Any, old: Any) -> Any:
    """Return a list or tuple as the type of `old`, and those inside of it as the type of those inside of `old`."""
    inner = next((item for item in old if isinstance(item, (list, tuple))), None)
    if inner is None:
        return type(old)(value)
    return type(old)(_sequence_like(v, inner) if isinstance(v, (list, tuple)) else v for v in value)


def _as_float(value: Any) -> Any:
    """Return an integer as a float where there is such a float, and any other value as it is."""
    return float(value) if type(value) is int and abs(value) <= sys.float_info.max else value


def _longest(value: Any) -> int:
    """Return the bits of the longest integer that a value is or contains, 0 if there is none."""
    if isinstance(value, (list, tuple)):
        return max(map(_longest, value), default=0)
    return value.bit_length() if type(value) is int else 0


def _kinds(value: Any) -> set[type]:
    """Return the types of the items of a list, also in lists inside of it; all numbers count as one type."""
    if not isinstance(value, (list, tuple)):
        return set()
    kinds: set[type] = set()
    for item in value:
        kinds |= _kinds(item) if isinstance(item, (list, tuple)) else {float if type(item) is int else type(item)}
    return kinds
