"""`key=value` changes to a lazy configuration, checked against what is there and what the targets take.

train.max_iter=50                     an existing key
model.backbone.norm=BN                an argument that the node's target takes, listed or not
lr_multiplier.scheduler.steps=[30,40] lists and mappings in YAML's notation; ${train.max_iter} refers to a key
dataloader.train.mapper.augmentations.0.max_size=600   an item of a list, by number
+train.note=hello                     any new key
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from .calls import TARGET, full_key, is_list, parameters_of

__all__ = ["apply_overrides", "fits"]

_WHERE = "command line"


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Apply changes in order and in place; see the module's text for their form.

    A mapping is merged key by key. A value must be of the kind that the target's annotation asks for or, without
    one, of the kind of the present value; an int is a float too, and what is None takes any.

    Returns:
        `cfg`.

    Raises:
        UserError: no `=`, an unknown key (the nearest is named), a value of the wrong kind.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if key.startswith("~"):
            raise UserError(f"{_WHERE}: {text!r}: deleting keys is not supported")
        if not equals or not key.strip("+"):
            raise UserError(f"{_WHERE}: a .py config is changed by key=value, e.g. train.max_iter=50; found {text!r}")
        _set(cfg, re.findall(r"[^.\[\]]+", key.lstrip("+")), _parse(value, text), add=key.startswith("+"))
    return cfg


def _parse(value: str, text: str) -> Any:
    if not value:
        return value  # a shell's way to write an empty text; YAML would read null
    try:
        parsed = OmegaConf.from_dotlist([f"value={value}"])
    except (yaml.YAMLError, OmegaConfBaseException) as e:
        raise UserError(f"{_WHERE}: {text!r}: the value is not readable as YAML: {str(e).splitlines()[0]}") from None
    return OmegaConf.to_container(parsed, resolve=False)["value"]


def _set(cfg: DictConfig, path: list[str], value: Any, add: bool) -> None:
    node: Any = cfg
    for depth, part in enumerate(path[:-1]):
        known = _has(node, part)
        if not known and add and isinstance(node, DictConfig):
            node[part] = {}
        elif not known:
            _unknown(node, path, depth)
        node = _get(node, part)
    if not (_has(node, path[-1]) or (isinstance(node, DictConfig) and (add or path[-1] in parameters_of(node)))):
        _unknown(node, path, len(path) - 1)
    old = _get(node, path[-1]) if _has(node, path[-1]) else None
    if isinstance(value, dict) and isinstance(old, DictConfig):
        for name, item in value.items():
            _set(cfg, [*path, str(name)], item, add)
    elif isinstance(value, str) and "${" in value:  # check what it refers to
        node[_index(node, path[-1])] = value
        _check(node, path[-1], old, _get(node, path[-1]))
    else:
        _check(node, path[-1], old, value)
        try:
            node[_index(node, path[-1])] = value
        except TypeError as e:  # an item of a tuple
            raise UserError(f"{_WHERE}: {full_key(node)} cannot be changed in parts ({e}); set all of it") from None


def _check(node: Any, key: str, old: Any, value: Any) -> None:
    name = full_key(node, _index(node, key))
    hint = parameters_of(node).get(key) if isinstance(node, DictConfig) else None
    if hint is None:
        if isinstance(old, DictConfig) and not isinstance(value, Mapping) and value is not None:
            raise UserError(f"{_WHERE}: {name} is a group of keys ({', '.join(map(str, old))}), found {value!r}")
        hint = _kind(old)
    if not fits(value, hint):
        like = "" if old is None or isinstance(old, DictConfig) else f" (like {_plain(old)!r})"
        raise UserError(f"{_WHERE}: {name} expects {_words(hint)}{like}, found {type(value).__name__} {value!r}")


def _has(node: Any, part: str) -> bool:
    if is_list(node):
        return part.lstrip("-").isdigit() and -len(node) <= int(part) < len(node)
    return isinstance(node, DictConfig) and part in node


def _index(node: Any, part: str) -> str | int:
    return int(part) if is_list(node) else part


def _get(node: Any, part: str) -> Any:
    try:
        return node[_index(node, part)]
    except OmegaConfBaseException as e:
        raise UserError(f"{_WHERE}: {full_key(node, _index(node, part))}: {str(e).splitlines()[0]}") from None


def _unknown(node: Any, path: Sequence[str], depth: int) -> typing.NoReturn:
    """Raise for the unknown part at `depth`; the suggestion looks among its siblings."""
    prefix = ".".join(path[:depth])
    if is_list(node):
        raise UserError(f"{_WHERE}: {prefix} is a list of {len(node)}: no item {path[depth]!r}")
    siblings = {*map(str, node), *parameters_of(node)} - {TARGET} if isinstance(node, DictConfig) else set()
    choices = [f"{prefix}.{s}" if prefix else s for s in siblings]
    hint = did_you_mean(".".join(path[: depth + 1]), choices) if choices else f": {prefix} holds {node!r}"
    raise UserError(f"{_WHERE}: unknown config key {'.'.join(path)!r}{hint}")


def _kind(old: Any) -> Any:
    """The annotation that the present value stands for."""
    if old is None or isinstance(old, DictConfig):
        return Any
    if is_list(old):
        return list
    return type(old) if isinstance(old, bool | int | float | str) else Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (of YAML's kinds) suits an annotation. Kinds that YAML does not have suit all mappings,
    which may describe them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in arguments)
    if origin is typing.Literal:
        return value in arguments
    kind = origin or hint
    if kind in (None, type(None)):
        return value is None
    if not isinstance(kind, type) or kind in (Any, object):
        return True
    if kind is float:
        return type(value) in (int, float)
    if kind in (bool, int, str):
        return type(value) is kind
    if issubclass(kind, Sequence) or kind is Iterable:
        return is_list(value) and _items_fit(value, kind, arguments)
    return isinstance(value, (Mapping, kind))


def _items_fit(items: Sequence[Any], kind: type, arguments: tuple[Any, ...]) -> bool:
    if kind is tuple and arguments and arguments[-1] is not ...:
        return len(items) == len(arguments) and all(map(fits, items, arguments))
    return not arguments or all(fits(item, arguments[0]) for item in items)


def _words(hint: Any) -> str:
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if plain else re.sub(r"(typing|collections\.abc)\.", "", str(hint))


def _plain(value: Any) -> Any:
    return list(value) if is_list(value) else value
