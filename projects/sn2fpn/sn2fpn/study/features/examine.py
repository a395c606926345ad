"""One model on many images: its mean measures, views of some of the images, and the measures as a table and a file."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ...data import DatasetMapper
from ...predict.predictor import Predictor
from ..files import write_json
from .maps import Measures, look, measure
from .view import View, make_view

__all__ = ["examine", "mean_measures", "measures_table", "write_results"]

_COLUMNS = {
    "boxes": "objects",
    "localisation_before": "localisation\nbefore",
    "localisation": "localisation\nafter",
    "coarse_share": "coarse\nshare",
    "agreement": "agreement",
    "agreement_inside": "agreement\ninside",
    "agreement_outside": "agreement\noutside",
}


def examine(
    predictor: Predictor, records: Sequence[dict[str, Any]], drawn: Collection[int]
) -> tuple[dict[str, Measures], list[View]]:
    """Measure a model's feature maps on the images of some data set dicts; `drawn` are positions of those to view.

    Inputs are made as in the model's evaluation, but with the boxes of the objects.

    Returns:
        The mean measures of each level by its name, from fine to coarse, and the views in the order of the images.
    """
    model, resize = predictor.model, predictor.resize
    mapper = DatasetMapper([] if resize is None else [resize], model.input_format, with_targets=True)
    per_image: list[dict[str, Measures]] = []
    views = []
    for i, record in enumerate(records):
        x = mapper(record, np.random.default_rng(0))
        measured = [(maps, measure(maps)) for maps in look(model, x)]
        per_image.append({maps.name: measures for maps, measures in measured})
        if i in drawn:
            views.append(make_view(x, measured, model.input_format))
    return mean_measures(per_image), views


def mean_measures(per_image: Sequence[dict[str, Measures]]) -> dict[str, Measures]:
    """Return each level's mean measures over the images on which they are defined, or None; boxes are summed up."""
    levels = {}
    for level, first in per_image[0].items():
        levels[level] = {key: _mean([measures[level][key] for measures in per_image]) for key in first}
        levels[level]["boxes"] = sum(measures[level]["boxes"] for measures in per_image)
    return levels


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None and math.isfinite(v)]  # a diverged model measures NaN
    return sum(defined) / len(defined) if defined else None


def write_results(
    measures: Mapping[str, Mapping[str, Measures]], images: int, set_name: str | None, path: Path
) -> dict[str, Any]:
    """Write the measures as JSON and return {"images": …, "set": …, "variants": {model: {level: {measure: value}}}}.

    `images` is the number of images that the means are over, `set_name` the data set or file that they come from.
    """
    results = {"images": images, "set": set_name, "variants": dict(measures)}
    write_json(path, results)
    return results


def measures_table(measures: Mapping[str, Mapping[str, Measures]]) -> str:
    """Return a table with a row for each level and model, level by level, so that models stand below each other."""
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
