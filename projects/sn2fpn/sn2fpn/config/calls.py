"""Nodes that describe a call, and the building of what they describe.

A node is an omegaconf mapping with `_target_` (a callable, or its dotted name) and the keyword arguments. Both
names and rules are those of Detectron2's LazyCall and instantiate, so that nodes made here work there.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean

__all__ = [
    "TARGET",
    "LazyCall",
    "as_config",
    "dotted_name",
    "full_key",
    "instantiate",
    "is_list",
    "locate",
    "parameters_of",
    "target_of",
]

TARGET = "_target_"

_YAML_KEY = re.compile(r"\b[A-Z][A-Z0-9_]*(?:\.[A-Z][A-Z0-9_]*)+\b")
_ARGUMENTS = {
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "filter_empty",
    "DATALOADER.SAMPLER_TRAIN": "sampler",
    "INPUT.CROP.TYPE": "kind",
    "INPUT.FORMAT": "image_format",
    "INPUT.MAX_SIZE_TRAIN": "max_size",
    "INPUT.MIN_SIZE_TRAIN": "short_edges",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "sampling",
    "MODEL.ESD.STAGES": "esd_stages",
    "MODEL.ESD.STEM": "esd_stem",
    "MODEL.IHP.FILTER": "filter_name",
    "MODEL.IHP.NORM": "filter_norm",
    "MODEL.MASK_ON": "mask_format",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": "conv_dims",
    "MODEL.ROI_BOX_HEAD.NUM_FC": "fc_dims",
    "SOLVER.IMS_PER_BATCH": "total_batch_size",
}
"""YAML key -> the argument that it becomes, where that is not its last part in small letters."""


class LazyCall:
    """`LazyCall(f)(a=1)` describes the call `f(a=1)`; `instantiate` makes it, after arguments were changed perhaps.

    Args:
        target: a callable, its dotted name, or a node that is built to a callable.

    Example:
        >>> from fractions import Fraction
        >>> node = LazyCall(Fraction)(numerator=1, denominator=2)
        >>> node.denominator = 3
        >>> instantiate(node)
        Fraction(1, 3)
    """

    def __init__(self, target: Callable[..., Any] | str | Mapping[str, Any]) -> None:
        if not (callable(target) or isinstance(target, str | Mapping)):
            raise TypeError(f"LazyCall takes a callable, its dotted name or a node, found {target!r}")
        self._target = target

    def __call__(self, **arguments: Any) -> DictConfig:
        target = self._target
        if isinstance(target, type) and is_dataclass(target):
            target = dotted_name(target)  # omegaconf takes a dataclass for a schema
        return as_config({TARGET: target, **arguments})


def as_config(values: Mapping[str, Any]) -> DictConfig:
    """A mapping as an omegaconf node that may hold any objects."""
    return DictConfig(values, flags={"allow_objects": True})


def instantiate(config: Any) -> Any:
    """Build what a node describes, its arguments first and in their order.

    Lists and tuples become plain lists of built items, dataclass-backed configs their dataclass. Everything else,
    mappings without `_target_` included, is returned as it is.

    Raises:
        UserError: no such target, arguments that it does not take or lacks, a value that it refuses; the message
            names the node's key, its target and the argument.
    """
    if is_list(config):
        return [instantiate(item) for item in config]
    if isinstance(config, DictConfig) and is_dataclass(OmegaConf.get_type(config)):
        return OmegaConf.to_object(config)
    if not (isinstance(config, Mapping) and TARGET in config):
        return config
    where = full_key(config)
    try:
        arguments = {key: instantiate(config[key]) for key in config if key != TARGET}
    except OmegaConfBaseException as e:
        raise UserError(f"{where or 'config'}: {str(e).splitlines()[0]}") from e
    target = target_of(config)
    name = dotted_name(target) or repr(target)
    where = f"{where} ({name})" if where else name
    _check_arguments(target, arguments, where)
    try:
        return target(**arguments)
    except UserError as e:
        raise UserError(f"{where}: {_in_arguments(str(e), target)}") from e
    except (TypeError, ValueError, RuntimeError) as e:  # how torch and others refuse a value
        raise UserError(f"{where}: {type(e).__name__}: {e}") from e


def _in_arguments(message: str, target: Callable[..., Any]) -> str:
    """A message of a class that YAML configs use too, with the argument before each YAML key that is one."""
    takes, said = _names(target), set()

    def named(match: re.Match[str]) -> str:
        key = match[0]
        argument = _ARGUMENTS.get(key, key.rpartition(".")[2].lower())
        if argument not in takes:
            return key
        first = key not in said and not said.add(key)
        return f"{argument} ({key} in YAML)" if first else argument

    return _YAML_KEY.sub(named, message)


def is_list(config: Any) -> bool:
    """Whether it is a list, or an omegaconf node of one (ListConfig; for tuples newer versions have a TupleConfig)."""
    return isinstance(config, list) or (isinstance(config, Container) and isinstance(config, Sequence))


def target_of(node: Mapping[str, Any]) -> Callable[..., Any]:
    """The callable that a node's `_target_` is or names. Raises UserError when there is none."""
    target = instantiate(node[TARGET])
    if isinstance(target, str):
        target = locate(target, where=full_key(node, TARGET))
    if not callable(target):
        raise UserError(f"{full_key(node, TARGET)}: expected something to call, found {target!r}")
    return target


def parameters_of(node: DictConfig) -> dict[str, Any]:
    """The arguments that a node's target takes, with their annotations (None: unknown); {} without a target."""
    if TARGET not in node:
        return {}
    target = target_of(node)
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations may name what only a type checker imports
        hints = {}
    return {name: hints.get(name) for name in _names(target)}


def _names(target: Callable[..., Any]) -> list[str]:
    """The names of the arguments that a callable takes; [] where it does not say."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some callables written in C
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def full_key(config: Any, key: str | int = "") -> str:
    """The dotted key of a node, or of `key` in it, counted from the root of its configuration."""
    if not isinstance(config, Container):
        return str(key)
    if key == "":
        owner = config._get_parent()
        return "" if owner is None else full_key(owner, config._key())
    return config._get_full_key(key)


def locate(name: str, where: str = "") -> Any:
    """The object with a dotted name: the longest part that is a module is imported, the rest are attributes.

    Raises:
        UserError: no such module or attribute.
    """
    where = f"{where}: " if where else ""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UserError(f"{where}{name!r} is no dotted name such as 'torch.optim.SGD'")
    found, rest = _import_longest(parts)
    if found is None:
        raise UserError(f"{where}cannot import {parts[0]!r} for {name!r}")
    for part in rest:
        if not hasattr(found, part):
            owner = getattr(found, "__name__", found)
            raise UserError(f"{where}{name!r}: {owner} has no {part!r}{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return found


def _import_longest(parts: list[str]) -> tuple[Any, list[str]]:
    for n in range(len(parts), 0, -1):
        module = ".".join(parts[:n])
        try:
            return importlib.import_module(module), parts[n:]
        except ModuleNotFoundError as e:
            if not f"{module}.".startswith(f"{e.name}."):
                raise  # the module is there, but needs another one
    return None, parts


def dotted_name(obj: Any) -> str | None:
    """The shortest dotted name by which `locate` finds an object; None when there is none (a lambda, a local)."""
    if inspect.ismethod(obj) and inspect.isclass(obj.__self__):
        owner = dotted_name(obj.__self__)
        return owner and f"{owner}.{obj.__name__}"
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not module or not name:
        return None
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        prefix = ".".join(parts[:n])
        try:
            found = functools.reduce(getattr, name.split("."), sys.modules[prefix])
        except (KeyError, AttributeError):
            continue
        if found is obj:
            return f"{prefix}.{name}"
    return None


def _check_arguments(target: Callable[..., Any], arguments: dict[str, Any], where: str) -> None:
    """Raise for arguments that the target's signature does not have or misses."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some callables written in C have none
        return
    try:
        signature.bind(**arguments)
    except TypeError as e:
        takes = _names(target)
        for name in arguments:
            if name not in takes:
                raise UserError(f"{where}: takes no argument {name!r}{did_you_mean(name, takes)}") from e
        raise UserError(f"{where}: {e}") from e
