"""A Python configuration as text: YAML that can be loaded again, and Python that is easy to read."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from ..atomic import atomic_write
from ..errors import UserError
from .calls import TARGET, dotted_name

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
    if names := getattr(value, "_fields", ()) or (
        [f.name for f in fields(value)] if is_dataclass(value) and not isinstance(value, type) else ()
    ):
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
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as e:
        raise UserError(f"config: {str(e).splitlines()[0]}") from e
    return "\n".join(_assignments(plain, prefix))


def _assignments(group: Mapping[Any, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    for key, value in group.items():
        nested = isinstance(value, Mapping) and value and TARGET not in value
        lines += _assignments(value, f"{prefix}{key}.") if nested else [f"{prefix}{key} = {_expression(value)}"]
    return lines


def _expression(value: Any, indent: str = "") -> str:
    """Return a value in Python's notation, on one line where it is short enough."""
    if isinstance(value, Mapping) and TARGET in value:
        target = value[TARGET]
        opening, closing = f"{target if isinstance(target, str) else dotted_name(target) or repr(target)}(", ")"
        items = [(f"{k}=", v) for k, v in value.items() if k != TARGET]
    elif isinstance(value, Mapping):
        opening, closing, items = "{", "}", [(f"{k!r}: ", v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        opening, closing, items = "[", "]", [("", v) for v in value]
    else:
        return dotted_name(value) or repr(value)
    inner = indent + "    "
    parts = [name + _expression(v, inner) for name, v in items]
    line = opening + ", ".join(parts) + closing
    if len(indent) + len(line) <= _WIDTH and "\n" not in line:
        return line
    return opening + "".join(f"\n{inner}{part}," for part in parts) + f"\n{indent}{closing}"
