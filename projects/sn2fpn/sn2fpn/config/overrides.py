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
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from .calls import TARGET, full_key, parameters_of

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
    _assign(node, path[-1], value, add)


def _assign(node: DictConfig | ListConfig, key: str, value: Any, add: bool) -> None:
    old = _get(node, key) if _has(node, key) else None
    if isinstance(value, dict) and isinstance(old, DictConfig):
        for name, item in value.items():
            _set(old, [str(name)], item, add)
        return
    name, index = full_key(node, key), _index(node, key)
    before = OmegaConf.to_container(node, resolve=False) if isinstance(value, str) and "${" in value else None
    if before is not None:  # check what it refers to
        node[index] = value
        value_now = _get(node, key)
        _check(node, key, old, value_now, name)
        return
    _check(node, key, old, value, name)
    node[index] = value


def _check(node: Any, key: str, old: Any, value: Any, name: str) -> None:
    hint = parameters_of(node).get(key) if isinstance(node, DictConfig) else None
    if hint is None:
        if isinstance(old, DictConfig) and not isinstance(value, Mapping) and value is not None:
            raise UserError(f"{_WHERE}: {name} is a group of keys ({', '.join(map(str, old))}), found {value!r}")
        hint = _kind(old)
    if not fits(value, hint):
        like = "" if old is None or isinstance(old, DictConfig) else f" (like {_plain(old)!r})"
        raise UserError(f"{_WHERE}: {name} expects {_words(hint)}{like}, found {type(value).__name__} {value!r}")


def _has(node: Any, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.lstrip("-").isdigit() and -len(node) <= int(part) < len(node)
    return isinstance(node, DictConfig) and part in node


def _index(node: Any, part: str) -> str | int:
    return int(part) if isinstance(node, ListConfig) else part


def _get(node: Any, part: str) -> Any:
    try:
        return node[_index(node, part)]
    except OmegaConfBaseException as e:
        raise UserError(f"{full_key(node, part)}: {str(e).splitlines()[0]}") from None


def _unknown(node: Any, path: Sequence[str], depth: int) -> typing.NoReturn:
    """Raise for the unknown part at `depth`; the suggestion looks among its siblings."""
    prefix = ".".join(path[:depth])
    if isinstance(node, ListConfig):
        raise UserError(f"{_WHERE}: {prefix} is a list of {len(node)}: no item {path[depth]!r}")
    siblings = {*map(str, node), *parameters_of(node)} - {TARGET} if isinstance(node, DictConfig) else set()
    choices = [f"{prefix}.{s}" if prefix else s for s in siblings]
    hint = did_you_mean(".".join(path[: depth + 1]), choices) if choices else f": {prefix} holds {node!r}"
    raise UserError(f"{_WHERE}: unknown config key {'.'.join(path)!r}{hint}")


def _kind(old: Any) -> Any:
    """The annotation that the present value stands for."""
    if old is None or isinstance(old, DictConfig):
        return Any
    if isinstance(old, ListConfig):
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
        return isinstance(value, list | ListConfig) and _items_fit(value, kind, arguments)
    return isinstance(value, (Mapping, kind))


def _items_fit(items: Sequence[Any], kind: type, arguments: tuple[Any, ...]) -> bool:
    if kind is tuple and arguments and arguments[-1] is not ...:
        return len(items) == len(arguments) and all(map(fits, items, arguments))
    return not arguments or all(fits(item, arguments[0]) for item in items)


def _words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, ListConfig) else value
