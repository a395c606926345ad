"""The study file: which variants of a configuration are compared, with which seeds, by which metrics."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..atomic import atomic_write
from ..config import CfgNode, get_cfg
from ..errors import UserError, did_you_mean
from .syntax import read_yaml

__all__ = ["Cell", "Study", "Variant", "cell_folder"]

_PYRAMID = "pyramid"  # the axis whose values may be a list of registered names
_NAME = re.compile(r"\w[\w.+=-]*")
_METRIC = re.compile(r"(bbox|segm)/\S+")


@dataclass(frozen=True)
class Variant:
    """One combination of axis values.

    Attributes:
        name: its values, joined by "-", over the axes that have more than one.
        axes: axis -> value, of all axes.
        overrides: config key -> value, what its axis values set.
    """

    name: str
    axes: dict[str, str] = field(hash=False)
    overrides: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Cell:
    """A variant trained with one seed."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """E.g. "sni/seed1", also its folder below `cells/`."""
        return f"{self.variant.name}/seed{self.seed}"


def cell_folder(folder: str | Path, cell: Cell) -> Path:
    """Where a cell's files lie in the study's folder; the OUTPUT_DIR of its training."""
    return Path(folder) / "cells" / cell.variant.name / f"seed{cell.seed}"


@dataclass(frozen=True)
class Study:
    """A study file that has been read.

    Attributes:
        name: of the study, and of its folder.
        path: of the file it was read from.
        base: the YAML config that all cells share.
        settings: config key -> value, over `base`, in every cell.
        axes: axis -> value -> {config key: value}.
        variants: the product of the axes without what EXCLUDE names.
        seeds: one cell per variant and seed.
        baseline: the variant that the others are compared with.
        metrics: "task/metric", the report's columns; the first is the headline.
        engine: "native" | "detectron2" | "auto".
        imports: Python files that are imported before configs are read.
    """

    name: str
    path: Path
    base: Path
    settings: dict[str, Any]
    axes: dict[str, dict[str, dict[str, Any]]]
    exclude: tuple[dict[str, str], ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    baseline: Variant
    metrics: tuple[str, ...]
    engine: str
    imports: tuple[Path, ...]

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Read a study file, or the `study.yaml` of a study's folder.

        The file itself is checked, not what it refers to: see `check`.

        Raises:
            UserError: an unreadable file, an unknown key, a value of the wrong kind, or a name that does not exist.
        """
        path = Path(path)
        raw = read_yaml(path)
        axes = {axis: _axis_values(axis, values, path) for axis, values in raw["AXES"].items()}
        exclude = tuple(_selection(entry, axes, f"{path}: EXCLUDE") for entry in raw["EXCLUDE"])
        variants = tuple(_variants(axes, exclude))
        if not variants:
            raise UserError(f"{path}: EXCLUDE leaves no variant")
        _check_names(variants, path)
        for metric in raw["METRICS"]:
            if not _METRIC.fullmatch(metric):
                raise UserError(f"{path}: METRICS: expected task/metric, e.g. bbox/AP or segm/AP50, found {metric!r}")
        return cls(
            name=raw["NAME"] or path.stem,
            path=path,
            base=_beside(path, raw["BASE"]),
            settings=_flat(raw["SET"]),
            axes=axes,
            exclude=exclude,
            variants=variants,
            seeds=tuple(raw["SEEDS"]),
            baseline=_baseline(raw["BASELINE"], axes, variants, path),
            metrics=tuple(raw["METRICS"]),
            engine=raw["ENGINE"],
            imports=tuple(_beside(path, file) for file in raw["IMPORTS"]),
        )

    @property
    def cells(self) -> list[Cell]:
        """Seed by seed, so that a study that is cut short has compared all variants."""
        return [Cell(variant, seed) for seed in self.seeds for variant in self.variants]

    def overrides(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Config key -> value, all that a cell changes in BASE (but for OUTPUT_DIR)."""
        return self.settings | variant.overrides | {"SEED": seed}

    def config(self, variant: Variant, seed: int) -> CfgNode:
        """The configuration of a cell, without its OUTPUT_DIR: BASE <- SET <- the variant <- SEED.

        Raises:
            UserError: an unknown key or a value of the wrong type; the message names where in the study file.
        """
        cfg = get_cfg()
        cfg.merge_from_file(str(self.base))
        changes = [("SET", self.settings)]
        changes += [(f"AXES.{axis}.{value}", self.axes[axis][value]) for axis, value in variant.axes.items()]
        for where, keys in changes:
            _refuse_own_keys(keys, f"{self.path}: {where}")
            try:
                cfg.merge_from_other_cfg(_nested(keys))
            except UserError as e:
                raise UserError(f"{self.path}: {where}: {e}") from None
        cfg.SEED = seed
        return cfg

    def save(self, path: str | Path) -> None:
        """Write the study with nothing left to defaults, so that `load(path)` gives it again; paths become relative."""

        def relative(file: Path) -> str:
            return os.path.relpath(file, Path(path).parent)

        content = {
            "NAME": self.name,
            "BASE": relative(self.base),
            "SET": self.settings,
            "AXES": self.axes,
            "EXCLUDE": list(self.exclude),
            "SEEDS": list(self.seeds),
            "BASELINE": self.baseline.axes,
            "METRICS": list(self.metrics),
            "ENGINE": self.engine,
            "IMPORTS": [relative(f) for f in self.imports],
        }
        with atomic_write(path) as f:
            yaml.safe_dump(content, f, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def _beside(path: Path, file: str) -> Path:
    return Path(os.path.normpath(path.parent / Path(file).expanduser()))


def _axis_values(axis: str, values: Any, path: Path) -> dict[str, dict[str, Any]]:
    """value -> {config key: value}; the pyramid axis may list names alone."""
    where = f"{path}: AXES.{axis}"
    if axis == _PYRAMID and isinstance(values, list):
        names = [str(v) for v in values]
        if len(set(names)) < len(names):
            raise UserError(f"{where}: {next(n for n in names if names.count(n) > 1)!r} is named twice")
        values = {name: {"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"} for name in names}
    if not isinstance(values, Mapping) or not values:
        short = ", or a list of pyramids" if axis == _PYRAMID else ""
        raise UserError(f"{where}: expected value names with the config keys that they set{short}, found {values!r}")
    out = {}
    for value, keys in values.items():
        if isinstance(value, bool):
            raise UserError(f"{where}: YAML reads the name {'on/yes' if value else 'off/no'} as {value}; quote it")
        if keys is not None and not isinstance(keys, Mapping):
            raise UserError(f"{where}.{value}: expected {{config key: value}}, found {keys!r}")
        out[str(value)] = _flat(keys or {})
    return out


def _variants(axes: dict[str, dict[str, dict[str, Any]]], exclude: tuple[dict[str, str], ...]) -> Iterator[Variant]:
    telling = [axis for axis, values in axes.items() if len(values) > 1] or list(axes)
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values))
        if any(all(chosen[axis] == value for axis, value in entry.items()) for entry in exclude):
            continue
        overrides: dict[str, Any] = {}
        for axis, value in chosen.items():
            overrides |= axes[axis][value]
        yield Variant("-".join(chosen[axis] for axis in telling) or "base", chosen, overrides)


def _check_names(variants: tuple[Variant, ...], path: Path) -> None:
    seen: dict[str, Variant] = {}
    for variant in variants:
        if not _NAME.fullmatch(variant.name):
            raise UserError(
                f"{path}: AXES: {variant.name!r} is no name for a folder; "
                "use letters, digits and . _ + = - in the names of values"
            )
        if variant.name in seen:
            raise UserError(
                f"{path}: AXES: two variants are called {variant.name!r}: {seen[variant.name].axes} and "
                f"{variant.axes}; rename a value"
            )
        seen[variant.name] = variant


def _selection(entry: Mapping[Any, Any], axes: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, str]:
    """`{axis: value}` whose axes and values exist."""
    chosen = {str(axis): str(value) for axis, value in entry.items()}
    for axis, value in chosen.items():
        if axis not in axes:
            raise UserError(f"{where}: unknown axis {axis!r}{did_you_mean(axis, axes)}")
        if value not in axes[axis]:
            raise UserError(f"{where}: the axis {axis!r} has no value {value!r}{did_you_mean(value, axes[axis])}")
    if not chosen:
        raise UserError(f"{where}: expected {{axis: value, …}}, found an empty entry")
    return chosen


def _baseline(
    entry: Mapping[Any, Any], axes: Mapping[str, Mapping[str, Any]], variants: tuple[Variant, ...], path: Path
) -> Variant:
    where = f"{path}: BASELINE"
    chosen = {axis: next(iter(values)) for axis, values in axes.items()}
    chosen |= _selection(entry, axes, where) if entry else {}
    for variant in variants:
        if variant.axes == chosen:
            return variant
    raise UserError(f"{where}: EXCLUDE removes {chosen}; name another combination as BASELINE")


def _refuse_own_keys(keys: Mapping[str, Any], where: str) -> None:
    for key, source in (("SEED", "SEEDS"), ("OUTPUT_DIR", "NAME and --output")):
        if key in keys:
            raise UserError(f"{where}: {key} follows from {source}; leave it out")


def _flat(keys: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, however the file groups them: {SOLVER: {MAX_ITER: 9}} and {SOLVER.MAX_ITER: 9} are the same."""
    flat: dict[str, Any] = {}
    for key, value in keys.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in keys.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{key}: {part} has a value of its own in the same place")
        node[leaf] = value
    return tree
