"""Variants and cells: what the axes of a study file expand to."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError, did_you_mean
from .syntax import flatten

__all__ = [
    "Axes",
    "Cell",
    "Variant",
    "choose_baseline",
    "expand",
    "folder_name_problem",
    "read_axis",
    "read_seeds",
    "select",
]

Axes = dict[str, dict[str, dict[str, Any]]]
"""axis -> value -> {config key: value}"""

_PYRAMID = "pyramid"  # the values of this axis may be a list of registered names
_NAME = re.compile(r"\w[\w.+=-]*")
_LONGEST_NAME = 200  # bytes; file systems allow 255
_MOST_VARIANTS = 10_000


@dataclass(frozen=True)
class Variant:
    """One combination of axis values."""

    name: str  # the values joined by "-", over the axes that have more than one value
    axes: dict[str, str] = field(hash=False)  # the value of every axis
    overrides: dict[str, Any] = field(hash=False)  # the configuration keys that these values set


@dataclass(frozen=True)
class Cell:
    """A variant that is trained with one seed."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """For example "sni/seed1", which is also the cell's folder below `cells/`."""
        return f"{self.variant.name}/seed{self.seed}"


def read_axis(axis: str, values: Any, where: str) -> dict[str, dict[str, Any]]:
    """Return {value: {config key: value}} for an axis of the file; a UserError about its form begins with `where`."""
    if axis == _PYRAMID and isinstance(values, list):
        names = [str(value) for value in values]
        if len(set(names)) < len(names):
            raise UserError(f"{where}: {next(n for n in names if names.count(n) > 1)!r} is named twice")
        values = {name: {"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"} for name in names}
    if not isinstance(values, Mapping) or not values:
        short = ", or a list of pyramids" if axis == _PYRAMID else ""
        raise UserError(f"{where}: expected named values with the config keys that they set{short}, found {values!r}")
    out = {}
    for value, keys in values.items():
        if isinstance(value, bool):
            raise UserError(f"{where}: YAML reads the name {'on/yes' if value else 'off/no'} as {value}; quote it")
        if keys is not None and not isinstance(keys, Mapping):
            raise UserError(f"{where}.{value}: expected {{config key: value}}, found {keys!r}")
        out[str(value)] = flatten(keys or {})
    return out


def read_seeds(value: Any, variants: Sequence[Variant], where: str) -> dict[str, tuple[int, ...]]:
    """Return the seeds of each variant by its name, from one list for all variants or from {variant: list}.

    A UserError about them begins with `where`.
    """
    names = [variant.name for variant in variants]
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, _checked_seeds(value, where))
    given = {str(name): seeds for name, seeds in value.items()}
    for name in given:
        if name not in names:
            raise UserError(f"{where}: unknown variant {name!r}{did_you_mean(name, names)}")
    for name in names:
        if name not in given:
            raise UserError(f"{where}: expected seeds for every variant, found none for {name!r}")
    return {name: _checked_seeds(given[name], f"{where}.{name}") for name in names}


def _checked_seeds(seeds: Any, where: str) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise UserError(f"{where}: expected one or more numbers, 0 or greater, found {seeds!r}")
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UserError(f"{where}: {seed!r} is named twice")
    return tuple(seeds)


def select(entry: Mapping[Any, Any], axes: Axes, where: str) -> dict[str, str]:
    """Return an entry {axis: value, …} of EXCLUDE or BASELINE as text; a UserError about it begins with `where`."""
    chosen = {str(axis): str(value) for axis, value in entry.items()}
    for axis, value in chosen.items():
        if axis not in axes:
            raise UserError(f"{where}: unknown axis {axis!r}{did_you_mean(axis, axes)}")
        if value not in axes[axis]:
            raise UserError(f"{where}: the axis {axis!r} has no value {value!r}{did_you_mean(value, axes[axis])}")
    if not chosen:
        raise UserError(f"{where}: expected {{axis: value, …}}, found an empty entry")
    return chosen


def expand(axes: Axes, exclude: Sequence[Mapping[str, str]], where: str) -> tuple[Variant, ...]:
    """Return the product of the axes without the combinations that an entry of `exclude` matches.

    A UserError says that no variant is left, or that a name cannot be a folder's name or is taken twice.
    """
    count = math.prod(map(len, axes.values()))
    if count > _MOST_VARIANTS:
        raise UserError(f"{where}: AXES: expected at most {_MOST_VARIANTS} combinations of values, found {count}")
    variants = tuple(_product(axes, exclude))
    if not variants:
        raise UserError(f"{where}: EXCLUDE leaves no variant")
    seen: dict[str, Variant] = {}
    for variant in variants:
        if problem := folder_name_problem(variant.name):
            raise UserError(f"{where}: AXES: {variant.name!r} cannot be the name of a folder, because {problem}")
        if not _NAME.fullmatch(variant.name):
            raise UserError(
                f"{where}: AXES: {variant.name!r} cannot be the name of a folder; "
                "use letters, digits and . _ + = - in the names of values"
            )
        if variant.name in seen:
            raise UserError(
                f"{where}: AXES: two variants are called {variant.name!r}: {seen[variant.name].axes} and "
                f"{variant.axes}; rename a value"
            )
        seen[variant.name] = variant
    return variants


def folder_name_problem(name: str) -> str:
    """Return why a name cannot be that of a folder in another folder, or "" if it can."""
    if not name.isprintable():
        return "it has control characters"
    if "/" in name or name in (".", ".."):
        return "it leads to another folder"
    length = len(name.encode())
    return f"it has {length} bytes, and {_LONGEST_NAME} are allowed" if length > _LONGEST_NAME else ""


def _product(axes: Axes, exclude: Sequence[Mapping[str, str]]) -> Iterator[Variant]:
    telling = [axis for axis, values in axes.items() if len(values) > 1] or list(axes)
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values))
        if any(entry.items() <= chosen.items() for entry in exclude):
            continue
        overrides: dict[str, Any] = {}
        for axis, value in chosen.items():
            overrides |= axes[axis][value]
        yield Variant("-".join(chosen[axis] for axis in telling) or "base", chosen, overrides)


def choose_baseline(entry: Mapping[Any, Any], axes: Axes, variants: Sequence[Variant], where: str) -> Variant:
    """Return the variant that an entry {axis: value, …} names; a missing axis has its first value."""
    chosen = {axis: next(iter(values)) for axis, values in axes.items()}
    chosen |= select(entry, axes, where) if entry else {}
    for variant in variants:
        if variant.axes == chosen:
            return variant
    raise UserError(f"{where}: EXCLUDE removes {chosen}; name another combination as BASELINE")
