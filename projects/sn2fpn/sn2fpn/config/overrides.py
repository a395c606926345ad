"""`key=value` changes to a Python configuration. They are checked against what it holds and what its targets take.

train.max_iter=50                     an existing key
model.backbone.norm=BN                an argument that the node's target takes, even if the file does not list it
lr_multiplier.scheduler.steps=[30,40] lists and mappings as YAML writes them; ${train.max_iter} refers to a key
dataloader.train.mapper.augmentations.0.max_size=600   an item of a list, by its number
+train.note=hello                     any new key
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from ..signatures import fits, keyword_parameters
from .calls import TARGET, full_key, is_list, target_of

__all__ = ["apply_overrides"]

_WHERE = "command line"


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Apply changes in order and in place, and return `cfg`; the module's text shows their forms.

    A mapping is merged key by key. A value must suit the annotation of the argument that it is for; without an
    annotation it must be of the type of the present value, and an integer may replace a float.

    Raises:
        UserError: a text without `=`, an unknown key, for which the nearest one is named, or a value of a wrong type.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip("+"):
            raise UserError(f"{_WHERE}: a .py config is changed by key=value, e.g. train.max_iter=50; found {text!r}")
        try:  # an empty value is an empty text, as in a shell, where YAML would read null
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"] if value else ""
        except (yaml.YAMLError, OmegaConfBaseException) as e:
            problem = str(e).splitlines()[0]
            raise UserError(f"{_WHERE}: {text!r}: the value is not readable as YAML: {problem}") from None
        _set(cfg, re.findall(r"[^.\[\]]+", key.lstrip("+")), parsed, add=key.startswith("+"))
    return cfg


def _set(cfg: DictConfig, path: list[str], value: Any, add: bool) -> None:
    node: Any = cfg
    for depth, part in enumerate(path):
        known = _keys(node)
        if part not in known and not (add and isinstance(node, DictConfig)):
            raise UserError(f"{_WHERE}: {_unknown(node, path, depth, known)}")
        if depth < len(path) - 1:
            if part not in known:
                node[part] = {}
            node = _get(node, part)
    key = path[-1]
    old = _get(node, key) if is_list(node) or key in node else None
    if isinstance(value, dict) and isinstance(old, DictConfig):
        for name, item in value.items():
            _set(cfg, [*path, str(name)], item, add)
        return
    try:
        OmegaConf.update(cfg, ".".join(path), value, merge=False)
    except TypeError:
        raise UserError(
            f"{_WHERE}: {full_key(node)} is a tuple, whose items cannot be changed; set all of it"
        ) from None
    _check_type(node, key, old, _get(node, key))


def _keys(node: Any) -> list[str]:
    """Return what may follow a node's key: a group's keys and its target's arguments, or the numbers of a list."""
    if is_list(node):
        return [str(i) for i in range(-len(node), len(node))]
    return [*map(str, node), *_arguments(node)] if isinstance(node, DictConfig) else []


def _arguments(node: Any) -> dict[str, inspect.Parameter]:
    return keyword_parameters(target_of(node)) if isinstance(node, DictConfig) and TARGET in node else {}


def _get(node: Any, key: str) -> Any:
    index = int(key) if is_list(node) else key
    try:
        return node[index]
    except OmegaConfBaseException as e:
        raise UserError(f"{_WHERE}: {full_key(node, index)}: {str(e).splitlines()[0]}") from None


def _unknown(node: Any, path: list[str], depth: int, known: list[str]) -> str:
    owner = ".".join(path[:depth])
    if is_list(node):
        return f"{owner} is a list of {len(node)} items, so there is no item {path[depth]!r}"
    near = did_you_mean(".".join(path[: depth + 1]), [f"{owner}.{k}".lstrip(".") for k in known])
    return f"unknown config key {'.'.join(path)!r}" + (near if known else f": {owner} holds {node!r}")


def _check_type(node: Any, key: str, old: Any, value: Any) -> None:
    """Raise a UserError unless a new value suits the argument's annotation or, without one, the type of the old one."""
    name, parameter = full_key(node, int(key) if is_list(node) else key), _arguments(node).get(key)
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    like = "" if old is None or isinstance(old, DictConfig) else f" (like {list(old) if is_list(old) else old!r})"
    if parameter and not isinstance(parameter.annotation, str) and parameter.annotation is not parameter.empty:
        kind = parameter.annotation
    elif isinstance(old, DictConfig) and not isinstance(value, Mapping) and value is not None:
        raise UserError(f"{_WHERE}: {name} is a group of keys ({', '.join(map(str, old))}), found {value!r}")
    else:
        kind = list if is_list(old) else type(old) if isinstance(old, bool | int | float | str) else Any
    if not fits(value, kind):
        words = kind.__name__ if type(kind) is type else re.sub(r"(typing|collections\.abc)\.", "", str(kind))
        raise UserError(f"{_WHERE}: {name} expects {words}{like}, found {type(value).__name__} {value!r}")
