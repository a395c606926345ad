"""Models on many images: their mean measures, views of some images, and the same for all variants of a study."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ...data import DatasetMapper, evenly_spread, get_dataset_dicts, images_with_objects, register_custom
from ...errors import UserError
from ...predict.predictor import Predictor
from ..files import write_json
from ..folder import CellFolder
from ..spec.study import Cell, Study
from .maps import Measures, look, measure
from .sheet import draw_views
from .view import View, make_view

__all__ = ["examine", "mean_measures", "measure_study", "measures_table", "write_results"]

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


logger = logging.getLogger(__name__)


def measure_study(study: Study, folder: str | Path, images: int = 64, drawn: int = 2) -> dict[str, Any]:
    """Measure each variant's feature maps and draw a few images; write features.json and features/*.png.

    The weights are those of the first seed. The images are evenly spread over those of the baseline's test set that
    have objects, and are the same for all variants. A variant without trained weights is left out with a warning; a
    UserError says that no variant has any.

    Args:
        study: The study.
        folder: The study's folder.
        images: Number of images to measure at most.
        drawn: Number of images to draw at most, each with all variants side by side.

    Returns:
        The content of features.json, see `write_results`.
    """
    folder, seed = Path(folder), study.seeds[0]
    base = study.config(study.baseline, seed)
    register_custom(base.DATASETS.CUSTOM)
    set_name = base.DATASETS.TEST[0]
    records = images_with_objects(get_dataset_dicts(set_name, where="DATASETS.TEST"), images)
    shown = evenly_spread(range(len(records)), drawn)
    measures: dict[str, dict[str, Measures]] = {}
    views: dict[str, list[View]] = {}
    for variant in study.variants:
        weights = CellFolder(folder, Cell(variant, seed)).weights
        if not weights.is_file():
            logger.warning("features: %s is left out because %s does not exist", variant.name, weights)
            continue
        cfg = study.config(variant, seed)
        cfg.MODEL.WEIGHTS = str(weights)
        measures[variant.name], views[variant.name] = examine(Predictor(cfg), records, shown)
        logger.info("features: measured %s on %d images", variant.name, len(records))
    if not measures:
        raise UserError(f"{folder}: no variant has trained weights of seed {seed}; run the study first")
    for k, i in enumerate(shown):
        stem = Path(records[i]["file_name"]).stem
        draw_views({name: v[k] for name, v in views.items()}, folder / "features" / f"{stem}.png", stem)
    return write_results(measures, len(records), set_name, folder / "features.json")
