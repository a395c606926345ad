"""A Python configuration as text: YAML that can be loaded again, and Python that is easy to read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, SCMode
from rich.pretty import pretty_repr

from ..atomic import atomic_write
from .calls import TARGET, dotted_name, omegaconf_errors

__all__ = ["save_yaml", "to_python", "to_yaml"]

logger = logging.getLogger(__name__)

_WIDTH = 100


def save_yaml(cfg: DictConfig, filename: str | os.PathLike[str]) -> None:
    """Write a configuration as YAML that `LazyConfig.load` reads back; see `to_yaml`."""
    text = to_yaml(cfg)
    with atomic_write(filename) as f:
        f.write(text)


def to_yaml(cfg: DictConfig) -> str:
    """Return a configuration as YAML with plain values; interpolations stay as they are.

    Targets become dotted names. Other classes and functions, dataclasses and named tuples become nodes that build
    them again. A value without such a form, for instance a lambda, is written as its `repr`, with a warning.
    """
    lost: list[str] = []
    plain = _plain(OmegaConf.to_container(cfg, structured_config_mode=SCMode.INSTANTIATE), "", lost)
    if lost:
        logger.warning("These values cannot be written as YAML, so the file cannot be loaded: %s", ", ".join(lost))
    return yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, width=_WIDTH, allow_unicode=True)


def _plain(value: Any, key: str, lost: list[str]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {k: _plain(v, f"{key}.{k}".lstrip("."), lost) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        names: tuple[str, ...] = tuple(f.name for f in fields(value))
    else:
        names = getattr(value, "_fields", ())  # of a named tuple
    if names:
        return {TARGET: dotted_name(type(value)), **{n: _plain(getattr(value, n), f"{key}.{n}", lost) for n in names}}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}.{i}", lost) for i, item in enumerate(value)]
    if name := dotted_name(value):
        return name if key.rpartition(".")[2] == TARGET else {TARGET: "sn2fpn.config.locate", "name": name}
    lost.append(key)
    return repr(value)


def to_python(cfg: DictConfig, prefix: str = "cfg.") -> str:
    """Return a configuration as assignments and calls for readers; interpolations are resolved.

    Raises:
        UserError: an interpolation names a key that does not exist.
    """
    with omegaconf_errors("config"):
        plain = OmegaConf.to_container(cfg, resolve=True)
    return "\n".join(f"{key} = {pretty_repr(_readable(v), max_width=_WIDTH)}" for key, v in _leaves(plain, prefix))


def _leaves(group: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, Mapping) and value and TARGET not in value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _readable(value: Any) -> Any:
    """Return a value whose `pretty_repr` shows nodes as calls, and classes and functions as dotted names."""
    if isinstance(value, Mapping):
        items = {k: _readable(v) for k, v in value.items() if k != TARGET}
        if TARGET not in value:
            return items
        target = value[TARGET]
        name = target if isinstance(target, str) else pretty_repr(_readable(target))
        return type(name, (), {"__rich_repr__": lambda self: iter(items.items())})()
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    name = dotted_name(value)
    return type(name, (), {"__repr__": lambda self: name})() if name else value
