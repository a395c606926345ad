"""A tree of configuration keys whose errors name the file, the key and the nearest valid key.

Its interface is that of yacs's and fvcore's CfgNode, which Detectron2 has. It differs from them in these ways: an
integer is accepted in place of a float, some keys accept several types, null is refused where the default is a value,
items of a list keep their kind, a closed configuration refuses new keys and values of another type also in Python,
where a mapping that is assigned to a group is merged into it, and YAML is always read safely and has each key once.
`tests/config/test_node_against_fvcore.py` compares the two.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from ..detectron2_types import ConfigBase
from ..errors import UserError, did_you_mean, shortened
from ..shipped import find_file
from .files import read_file, read_text, read_with_base
from .pairs import pairs_of
from .unknown import unknown_key, without_unread
from .values import COMMAND_LINE, checked, checked_leaf, decoded

__all__ = ["CfgNode"]

# The attributes of a group. The first two have the names that yacs gives them, so that its trees may hold ours.
_FROZEN = "__immutable__"
_NEW_ALLOWED = "__new_allowed__"
_GROWS = "__grows__"  # whether assignments in a closed group may make keys
_PATH = "__path__"  # the key by which a closed group knows itself


class CfgNode(ConfigBase):
    """A configuration: a mapping of keys to plain values and groups of keys, whose keys are also attributes.

    A new tree is open: every assignment declares a key. `close()` ends that. In a closed tree an assignment is checked
    as a file is, and it refuses unknown keys; a mapping that is assigned to a group is merged into it. To add keys of
    your own, assign a new group, which is open, or open the tree:

        cfg.MODEL.MYTHING = CfgNode()      # a new group
        cfg.MODEL.MYTHING.WIDTH = 3
        cfg.set_new_allowed(True)          # or: new keys anywhere, also in files that are merged
        cfg.SOLVER.BETA = 0.9
        cfg.set_new_allowed(False)

    Args:
        init_dict: the keys and their values, which are copied; mappings become groups.
        key_list: the names that lead to this group, for messages.
        new_allowed: whether files that are merged may have new keys at the top.

    Raises:
        UserError: a value is not plain: no bool, number, text, list, tuple, None or mapping.
    """

    def __init__(
        self, init_dict: Mapping[str, Any] | None = None, key_list: list[str] | None = None, new_allowed: bool = False
    ) -> None:
        self.__dict__.update({_FROZEN: False, _NEW_ALLOWED: new_allowed})
        for key, value in (init_dict or {}).items():
            path = [*(key_list or ()), str(key)]
            new = type(self)(value, path) if isinstance(value, dict) else copy.deepcopy(value)
            dict.__setitem__(self, key, new if isinstance(new, dict) else checked_leaf(new, ".".join(path)))

    # Access

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        near = "" if name.startswith("__") else did_you_mean(name, self)
        raise AttributeError(f"there is no config key {self._full_key(name)!r}{near}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a key. One whose name starts with COMPUTED_ is set once, also in a frozen tree.

        Raises:
            UserError: the tree is closed, and there is no such key, or it has a value of another type.
            AttributeError: the tree is frozen.
            KeyError: the key starts with COMPUTED_ and has another value.
        """
        key = self._full_key(name)
        if name.startswith("COMPUTED_"):
            if name in self and self[name] != value:
                raise KeyError(f"{key} is computed once and is {self[name]!r}, so it cannot become {value!r}")
        elif self.is_frozen():
            raise AttributeError(f"{key} cannot be set to {value!r}: the tree is immutable until cfg.defrost()")
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a key as an attribute does, but also in a frozen tree.

        Raises:
            UserError: the tree is closed, and there is no such key, or it has a value of another type.
        """
        dict.__setitem__(self, name, self._checked_assignment(name, value))

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

    def _full_key(self, name: Any) -> str:
        return f"{self.__dict__.get(_PATH, '')}.{name}".lstrip(".")

    def _checked_assignment(self, name: str, value: Any) -> Any:
        """Return the value to set in this tree. It is checked against the present one if the tree is closed."""
        key = self._full_key(name)
        if _PATH in self.__dict__ and not str(name).startswith("COMPUTED_"):
            if name in self and not isinstance(self[name], dict):
                return checked(value, self[name], key, "")
            if name in self and not isinstance(value, dict):
                raise UserError(f"{key} is a group of keys, found {value!r}")
            ours = type(value) is dict or isinstance(value, CfgNode)  # a tree of fvcore's makes its groups anew
            if name in self and ours and not self._grows():
                return _merged(self[name], value, tuple(key.split(".")))
            if name not in self and not isinstance(value, dict) and not self._grows():
                near = did_you_mean(str(name), self, prefix=key.removesuffix(str(name)))
                advice = "a key of your own goes into a new CfgNode, or needs cfg.set_new_allowed(True) before it"
                raise UserError(f"unknown config key {key!r}{near} ({advice})")
        if type(value) is dict:
            return type(self)(value)
        return value if isinstance(value, dict) else checked_leaf(value, key)

    # The state of a tree

    def close(self, path: str = "", *, new_keys: bool = False) -> CfgNode:
        """Check assignments in this tree from now on, and return the tree.

        Args:
            path: the full key of this group.
            new_keys: whether assignments may make keys, as in Detectron2. Files that are merged still may not.
        """
        self.__dict__.update({_PATH: path, _GROWS: new_keys})
        for key, value in self.items():
            if isinstance(value, CfgNode):
                value.close(f"{path}.{key}".lstrip("."), new_keys=new_keys)
        return self

    def _grows(self) -> bool:
        return self.__dict__.get(_GROWS, False) or self.is_new_allowed()

    def freeze(self) -> None:
        """Let attributes of this tree be set no more."""
        self.__dict__[_FROZEN] = True
        for group in self._groups():
            group.freeze()

    def defrost(self) -> None:
        """Let attributes of this tree be set again."""
        self.__dict__[_FROZEN] = False
        for group in self._groups():
            group.defrost()

    def is_frozen(self) -> bool:
        """Return whether attributes of this group cannot be set."""
        return self.__dict__[_FROZEN]

    def set_new_allowed(self, is_new_allowed: bool) -> None:
        """Say whether assignments in this tree, and files that are merged into it, may have new keys."""
        self.__dict__[_NEW_ALLOWED] = is_new_allowed
        for group in self._groups():
            group.set_new_allowed(is_new_allowed)

    def is_new_allowed(self) -> bool:
        """Return whether this group takes new keys."""
        return self.__dict__[_NEW_ALLOWED]

    def _groups(self) -> list[Any]:
        """Return the groups in this one; a group may also be a tree of yacs's or Detectron2's."""
        return [value for value in self.values() if isinstance(value, dict) and hasattr(value, "set_new_allowed")]

    # Copies and texts

    def clone(self) -> CfgNode:
        """Return a copy that shares nothing with this tree, and is closed and frozen as it is."""
        return copy.deepcopy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, a copy is closed before it gets its keys.
        return _rebuild, (type(self), dict(self), dict(self.__dict__))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict.__repr__(self)})"

    def __str__(self) -> str:
        lines = [f"{key}:{chr(10) if isinstance(value, dict) else ' '}{value}" for key, value in sorted(self.items())]
        return "\n".join(line.replace("\n", "\n  ") for line in lines)

    def dump(self, **options: Any) -> str:
        """Return the tree as YAML. The options are those of `yaml.safe_dump`."""
        return yaml.safe_dump(_as_dict(self), **options)

    # Merging

    @classmethod
    def load_cfg(cls, source: str | IO[str]) -> CfgNode:
        """Return the tree of a YAML text or of an open YAML file, in which `_BASE_` has no meaning.

        Raises:
            UserError: the text is not a YAML mapping of plain values, or the file is a Python file.
        """
        if isinstance(source, str):
            return cls(read_text(source, "configuration"))
        if not isinstance(source, io.IOBase):
            raise UserError(f"load_cfg expects a YAML text or an open file, found {source!r}")
        name = str(getattr(source, "name", "configuration"))
        if Path(name).suffix not in ("", ".yaml", ".yml"):
            raise UserError(f"{name}: expected a YAML file; for what a Python file defines, call CfgNode(its mapping)")
        return cls(read_text(source.read(), name))

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Return the mapping of a YAML file, merged over the files that its `_BASE_` names; see `merge_from_file`."""
        if allow_unsafe:
            raise UserError("allow_unsafe is not supported: configuration files are always read safely")
        return read_with_base(find_file(filename, "configs"))

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a YAML file, after the files that its `_BASE_` names.

        Groups of Detectron2 that the model of the file does not read are left out, see `without_unread`.

        Args:
            cfg_filename: path of the file, or the name of one that comes with this package, see `find_file`.
            allow_unsafe: exists for fvcore's interface only and must be False.

        Raises:
            UserError: a file is missing, is not a YAML mapping of plain values, or has an unknown key or a value of the
                wrong type.
        """
        content = self.load_yaml_with_base(cfg_filename, allow_unsafe)
        content = without_unread(content, read_file(find_file(cfg_filename, "configs")), self)
        self._merge(content, str(cfg_filename))

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merge another configuration tree or a mapping.

        Raises:
            UserError: an unknown key, or a value of the wrong type.
        """
        self._merge(cfg_other, "")

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        """Merge a list `["KEY", value, "KEY.SUB", value, …]`, for example from a command line.

        Raises:
            UserError: a key has no value, a key is unknown, or a value has the wrong type.
        """
        for full_key, value in pairs_of(cfg_list, self):
            *parents, leaf = full_key.split(".")
            node: Any = self
            for depth, part in enumerate(parents):
                if part not in node or not isinstance(node[part], dict):
                    raise unknown_key(self, node, parents[: depth + 1], COMMAND_LINE, full_key)
                node = node[part]
            if leaf not in node:
                raise unknown_key(self, node, [*parents, leaf], COMMAND_LINE, full_key)
            if isinstance(node[leaf], dict):
                raise UserError(f"{COMMAND_LINE}: {full_key} is a group of keys, found {shortened(repr(value))}")
            node[leaf] = checked(decoded(value), node[leaf], full_key, COMMAND_LINE)

    def _merge(self, other: Mapping[str, Any], source: str, path: tuple[str, ...] = (), root: Any = None) -> None:
        root = self if root is None else root
        for key, value in other.items():
            full_path = (*path, str(key))
            if key not in self:
                if not self.is_new_allowed():
                    raise unknown_key(root, self, full_path, source)
                self[key] = decoded(copy.deepcopy(value))
            elif not isinstance(self[key], dict):
                self[key] = checked(decoded(copy.deepcopy(value)), self[key], ".".join(full_path), source)
            elif isinstance(value, dict):
                CfgNode._merge(self[key], value, source, full_path, root)
            else:
                where = f"{source}: {'.'.join(full_path)}".removeprefix(": ")
                raise UserError(f"{where} is a group of keys, found {value!r}")


def _rebuild(cls: type[CfgNode], items: dict[str, Any], state: dict[str, Any]) -> CfgNode:
    """Return the copy of a tree that `CfgNode.__reduce__` describes."""
    node = cls.__new__(cls)
    dict.update(node, items)
    node.__dict__.update(state)
    return node


def _merged(group: Any, values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return a copy of the group with this path, into which values are merged."""
    root = merged = copy.deepcopy(group)
    for part in reversed(path):
        root = {part: root}
    CfgNode._merge(merged, values, "", path, root)
    return merged


def _as_dict(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _as_dict(value) if isinstance(value, dict) else value for key, value in node.items()}
