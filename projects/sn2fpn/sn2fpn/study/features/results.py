"""Measures as a table and as features.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from ...atomic import atomic_write
from .look import Measures

__all__ = ["measures_table", "write_results"]

_COLUMNS = {
    "boxes": "objects",
    "localisation_before": "localisation\nbefore",
    "localisation": "localisation\nafter",
    "coarse_share": "coarse\nshare",
    "agreement": "agreement",
    "agreement_inside": "agreement\ninside",
    "agreement_outside": "agreement\noutside",
}


def write_results(
    measures: Mapping[str, Mapping[str, Measures]], images: int, set_name: str | None, path: str | Path
) -> dict[str, object]:
    """Write `{model: {level: {measure: value}}, "images": n, "set": name}` as JSON; returns it.

    Args:
        measures: by model and level.
        images: how many pictures the means are over.
        set_name: where they come from.
    """
    results: dict[str, object] = {**measures, "images": images, "set": set_name}
    with atomic_write(path) as file:
        json.dump(results, file, indent=2)
    return results


def measures_table(measures: Mapping[str, Mapping[str, Measures]]) -> str:
    """A row per level and model; level by level, so that models stand below each other."""
    first = next(iter(measures.values()))
    rows = [(level, name, measures[name][level]) for level in first for name in measures]
    shown = [key for key in _COLUMNS if any(values[key] is not None for _, _, values in rows)]
    if not any(values["boxes"] for _, _, values in rows):
        shown.remove("boxes")
    return tabulate(
        [[level, name, *(values[key] for key in shown)] for level, name, values in rows],
        ["level", "model", *(_COLUMNS[key] for key in shown)],
        floatfmt=".3f",
        missingval="–",
    )
