"""A lazy configuration as text: YAML that can be loaded again, and Python that can be read."""

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
    """Write `to_yaml` to a file, replaced in one step."""
    text = to_yaml(cfg)
    with atomic_write(filename) as f:
        f.write(text)


def to_yaml(cfg: DictConfig) -> str:
    """YAML with plain values only; interpolations stay as they are.

    Targets become dotted names. Other classes and functions, dataclasses and named tuples become nodes that build
    them again. For what has no such form (a lambda, a tensor) its repr is written, and a warning logged.
    """
    plain = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    lost: list[str] = []
    text = yaml.safe_dump(
        _as_data(plain, "", lost), default_flow_style=None, sort_keys=False, width=_WIDTH, allow_unicode=True
    )
    if lost:
        logger.warning("These values cannot be written as YAML; the file is for reading only: %s", ", ".join(lost))
    return text


def _as_data(value: Any, key: str, lost: list[str]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        out = {k: _as_data(v, f"{key}.{k}" if key else str(k), lost) for k, v in value.items() if k != TARGET}
        return {TARGET: _target_name(value[TARGET], f"{key}.{TARGET}", lost), **out} if TARGET in value else out
    names = getattr(value, "_fields", None) or ([f.name for f in fields(value)] if _is_dataclass_object(value) else ())
    if names and (target := dotted_name(type(value))):
        return {TARGET: target, **{n: _as_data(getattr(value, n), f"{key}.{n}", lost) for n in names}}
    if isinstance(value, list | tuple):
        return [_as_data(item, f"{key}.{i}", lost) for i, item in enumerate(value)]
    if name := dotted_name(value):
        return {TARGET: "sn2fpn.config.locate", "name": name}
    lost.append(key)
    return repr(value)


def _target_name(target: Any, key: str, lost: list[str]) -> Any:
    if callable(target):
        if name := dotted_name(target):
            return name
        lost.append(key)
        return repr(target)
    return _as_data(target, key, lost)


def _is_dataclass_object(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def to_python(cfg: DictConfig, prefix: str = "cfg.") -> str:
    """Assignments and calls, one per line or, where too long, an argument per line; not meant to be run.

    Raises:
        UserError: an interpolation that leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as e:
        raise UserError(f"config: {str(e).splitlines()[0]}") from e
    return "\n".join(_assignments(plain, prefix))


def _assignments(value: Mapping[Any, Any], prefix: str) -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item and TARGET not in item:
            lines += _assignments(item, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key} = " + _expression(item, len(f"{prefix}{key} = "), ""))
    return lines


def _expression(value: Any, column: int, indent: str) -> str:
    """`value` in Python's notation; `column` is where it starts, `indent` that of its line."""
    if isinstance(value, Mapping) and TARGET in value:
        target = value[TARGET]
        name = target if isinstance(target, str) else dotted_name(target) or repr(target)
        items = [(f"{k}=", v) for k, v in value.items() if k != TARGET]
        opening, closing = f"{name}(", ")"
    elif isinstance(value, Mapping):
        items = [(f"{k!r}: ", v) for k, v in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, list | tuple):
        items = [("", v) for v in value]
        opening, closing = "[", "]"
    else:
        return dotted_name(value) or repr(value)
    line = opening + ", ".join(name + _expression(v, 0, "") for name, v in items) + closing
    if column + len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = indent + "    "
    rows = [f"{inner}{name}{_expression(v, len(inner + name) + 1, inner)},\n" for name, v in items]
    return f"{opening}\n{''.join(rows)}{indent}{closing}"
