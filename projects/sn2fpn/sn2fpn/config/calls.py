"""Nodes that describe calls, and `instantiate`, which makes the calls.

A node is an omegaconf mapping with `_target_`, a callable or its dotted name, and keyword arguments. Names and rules
are those of Detectron2's LazyCall and instantiate, so that nodes which are made here also work there.
"""

from __future__ import annotations

import operator
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ArgumentError, UserError, argument_names, did_you_mean
from ..signatures import keyword_parameters

__all__ = [
    "TARGET",
    "LazyCall",
    "as_config",
    "restrict_targets",
    "dotted_name",
    "full_key",
    "instantiate",
    "is_list",
    "locate",
    "omegaconf_errors",
    "target_of",
]

TARGET = "_target_"

_MOVED = dict.fromkeys(
    (f"sn2fpn.modeling.{module}" for module in ("anchors", "box_head", "mask_head", "roi_pooler", "rpn_head")),
    "sn2fpn.modeling",
) | {"fvcore.common.param_scheduler": "sn2fpn.engine.solver"}
"""Modules that saved configurations name, and where their classes, or those that take their place, are now."""

_RESTRICTED = "restricted_targets"
"""The flag of nodes from files that are data, whose targets may come from these packages only."""

_BUILDING_BLOCKS = (
    *(f"sn2fpn.{room}" for room in ("layers", "pyramids", "modeling", "data", "evaluation", "engine.solver")),
    *(f"detectron2.{part}" for part in ("layers", "modeling", "data", "evaluation", "solver", "structures")),
    "torch.nn",
    "torch.optim",
    "fvcore.common.param_scheduler",
)
_PROGRAMS = (
    *(f"sn2fpn.data.{program}" for program in ("check", "convert", "photos", "shapes")),
    *(f"sn2fpn.data.formats.{writer}" for writer in ("examples", "writers")),
    "sn2fpn.evaluation.analysis",
)
"""Modules in these packages that write files or are programs, so that they are no building blocks."""


class LazyCall:
    """A call that is described now and made later by `instantiate`, perhaps with other arguments.

    Args:
        target: a callable, its dotted name, or a node that is instantiated to a callable.

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
        # omegaconf would take a dataclass for a schema
        self._target = dotted_name(target) if isinstance(target, type) and is_dataclass(target) else target

    def __call__(self, **arguments: Any) -> DictConfig:
        return as_config({TARGET: self._target, **arguments})


def as_config(values: Mapping[str, Any]) -> DictConfig:
    """Return a mapping as an omegaconf node that may hold objects of any type."""
    return DictConfig(values, flags={"allow_objects": True})


def restrict_targets(config: Any) -> None:
    """Let all nodes in a configuration name as targets only what models, data and schedules are built from.

    Each node keeps the restriction when it is moved into another configuration.
    """
    if isinstance(config, Container):
        config._set_flag(_RESTRICTED, True)
        if config._is_none() or config._is_missing() or config._is_interpolation():
            return
        for key in config if isinstance(config, DictConfig) else range(len(config)):
            restrict_targets(config._get_node(key))  # without following references, which may lead nowhere


def is_list(config: Any) -> bool:
    """Return whether `config` is a list or an omegaconf node of a list or of a tuple."""
    return isinstance(config, list) or (isinstance(config, Container) and isinstance(config, Sequence))


def full_key(config: Any, key: str | int | None = None) -> str:
    """Return the dotted key, from the root of the configuration, of a node or of `key` in it."""
    return config._get_full_key(key) if isinstance(config, Container) else str(key or "")


@contextmanager
def omegaconf_errors(where: str) -> Iterator[None]:
    """Turn omegaconf's errors, e.g. for a reference to a missing key, into a UserError that begins with `where`.

    The message names the key that holds the value, unless it is `where`.
    """
    try:
        yield
    except (OmegaConfBaseException, RecursionError) as e:  # omegaconf follows nested references by recursion
        key = getattr(e, "full_key", None) or where
        place = where if key == where else f"{where}: {key}".removeprefix(": ")
        raise UserError(f"{place}: {str(e).splitlines()[0]}") from e


def instantiate(config: Any) -> Any:
    """Build what a node describes; its arguments are built first, in their order.

    Lists and tuples become lists of built items, and configurations of dataclasses become these. Everything else is
    returned as it is, including mappings without `_target_`.

    Raises:
        UserError: the target does not exist, does not take an argument, lacks one, or refuses a value. The message
            names the node's key, the target and the argument.
    """
    if is_list(config):
        return [instantiate(item) for item in config]
    if isinstance(config, DictConfig) and is_dataclass(OmegaConf.get_type(config)):
        return OmegaConf.to_object(config)
    if not (isinstance(config, Mapping) and TARGET in config):
        return config
    key = full_key(config)
    with omegaconf_errors(key or "config"):
        arguments = {name: instantiate(config[name]) for name in config if name != TARGET}
    target = target_of(config)
    name = dotted_name(target) or repr(target)
    try:
        with argument_names(lambda argument: f"{key}.{argument} ({name})".lstrip(".")):
            return target(**arguments)
    except ArgumentError:
        raise
    except (TypeError, ValueError, RuntimeError) as e:  # torch and others refuse values with all of these
        raise UserError(f"{f'{key} ({name})' if key else name}: {_problem(e, target, arguments)}") from e


def _problem(error: Exception, target: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    takes = keyword_parameters(target)
    for name in arguments:
        if name not in takes and isinstance(error, TypeError) and repr(name) in str(error):
            return f"takes no argument {name!r}{did_you_mean(name, takes)}"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def target_of(node: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the callable that a node calls. Raises UserError when there is none."""
    target = instantiate(node[TARGET])
    if isinstance(target, str):
        restricted = isinstance(node, Container) and node._get_flag(_RESTRICTED)
        target = (_locate_building_block if restricted else locate)(target, where=full_key(node, TARGET))
    if not callable(target):
        raise UserError(f"{full_key(node, TARGET)}: expected something that can be called, found {target!r}")
    return target


def locate(name: str, where: str = "") -> Any:
    """Return the object with a dotted name, such as "torch.optim.SGD"; the modules on the way are imported.

    Args:
        name: the names of modules, then of attributes; a name that a class had before it was moved is found, too.
        where: the key that holds the name, for messages.

    Raises:
        UserError: there is no such module or attribute.
    """
    where = f"{where}: " if where else ""
    module, _, attribute = name.rpartition(".")
    try:
        return pkgutil.resolve_name(f"{_MOVED[module]}.{attribute}" if module in _MOVED else name)
    except ValueError:
        raise UserError(f"{where}expected a dotted name such as 'torch.optim.SGD', found {name!r}") from None
    except ImportError as e:
        raise UserError(f"{where}cannot import {name!r}: {e}") from e
    except AttributeError as e:
        choices = dir(e.obj)
        if attribute == e.name:  # what is called, while modules may be on the way to it
            choices = [choice for choice in choices if callable(getattr(e.obj, choice, None))]
        raise UserError(f"{where}{name!r} does not exist: {e}{did_you_mean(str(e.name), choices)}") from e


def _locate_building_block(name: str, where: str = "") -> Any:
    """Return what `locate` does if it is a class or a function of `_BUILDING_BLOCKS`; UserError otherwise."""
    if name == f"{__package__}.{locate.__name__}":  # how YAML files write a class that is an argument
        return _locate_building_block
    # Both the name and what it leads to count, since a module also has the modules that it imports as attributes.
    parts = name.split(".")
    found = locate(name, where) if _is_building_block(name) and not any(p.startswith("_") for p in parts) else None
    if not _is_building_block(getattr(found, "__module__", None) or ""):
        raise UserError(
            f"{where or 'name'}: {name!r} is refused, because a YAML file is data and may name parts of models, data "
            f"and schedules only (from {', '.join(_BUILDING_BLOCKS[:3])}, torch.nn, …); "
            "LazyConfig.load(filename, trust=True) allows all names"
        )
    return found


def _is_building_block(name: str) -> bool:
    inside = f"{name}."
    return inside.startswith(tuple(f"{p}." for p in _BUILDING_BLOCKS)) and not inside.startswith(
        tuple(f"{p}." for p in _PROGRAMS)
    )


def dotted_name(obj: Any) -> str | None:
    """Return the shortest name by which `locate` finds an object, or None when it has none, such as a lambda."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    parts = module.split(".") if module and name else []
    for n in range(1, len(parts) + 1):
        prefix = ".".join(parts[:n])
        try:
            found = operator.attrgetter(name)(sys.modules[prefix])
        except (KeyError, AttributeError):
            continue
        if found == obj:  # not `is`: a class's method is a new object each time
            return f"{prefix}.{name}"
    return None
