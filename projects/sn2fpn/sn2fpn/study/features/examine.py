"""Models on many images: their mean measures, views of some images, and the same for all variants of a study."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ...data import DatasetMapper, evenly_spread, get_dataset_dicts, images_with_objects, register_custom
from ...errors import ArgumentError, UserError, argument_names
from ...predict.predictor import Predictor
from ..files import read_json, with_nested_variants, write_json
from ..folder import CellFolder, trained_cells
from ..spec.study import Study, Variant
from .maps import Measures, look, measure
from .sheet import draw_views
from .view import View, make_view

__all__ = ["compare_models", "examine", "mean_measures", "measure_study", "measures_table", "write_results"]

logger = logging.getLogger(__name__)

_COLUMNS = {
    "boxes": "objects",
    "localisation_before": "localisation\nbefore",
    "localisation": "localisation\nafter",
    "coarse_share": "coarse\nshare",
    "agreement": "agreement",
    "agreement_inside": "agreement\ninside",
    "agreement_outside": "agreement\noutside",
}


def compare_models(
    predictors: Iterable[tuple[str, Predictor]],
    records: Sequence[dict[str, Any]],
    drawings: Mapping[int, Path],
    set_name: str | None,
    path: Path,
) -> dict[str, Any]:
    """Measure the feature maps of models on images, draw some of the images and write the measures as JSON.

    Args:
        predictors: Names and models, which are taken one after the other.
        records: Data set dicts of the images.
        drawings: For the positions of some images, the PNG that shows all models.
        set_name: The data set or file that the images come from.
        path: The JSON file.

    Returns:
        The content of the file, see `write_results`.
    """
    measures: dict[str, dict[str, Measures]] = {}
    views: dict[str, list[View]] = {}
    for name, predictor in predictors:
        measures[name], views[name] = examine(predictor, records, drawings)
        first = next(iter(measures))
        if list(measures[name]) != list(measures[first]):
            found, expected = (", ".join(measures[n]) for n in (name, first))
            problem = f"{name} has levels {found}, {first} has {expected}; compare models with the same IN_FEATURES"
            raise ArgumentError("predictors", problem)
        logger.info("features: measured %s on %d images", name, len(records))
    for k, (i, file) in enumerate(drawings.items()):
        draw_views({name: views[name][k] for name in views}, file, Path(records[i]["file_name"]).name)
    return write_results(measures, len(records), set_name, path)


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


def _drawings(records: Sequence[dict[str, Any]], drawn: int, folder: Path) -> dict[int, Path]:
    """Return the files for the drawings of evenly spread images, and remove drawings of other images."""
    chosen = list(evenly_spread(range(len(records)), drawn))
    stems = [Path(records[i]["file_name"]).stem for i in chosen]
    names = [stem if stems.count(stem) == 1 else f"{stem}_{i}" for i, stem in zip(chosen, stems)]
    files = {i: folder / f"{name}.png" for i, name in zip(chosen, names)}
    for old in set(folder.glob("*.png")) - set(files.values()):
        old.unlink()
    return files


def _measured_before(path: Path) -> dict[str, Any]:
    """Return the content of features.json, {} if there is none or it is broken."""
    try:
        return with_nested_variants(read_json(path))
    except UserError:
        return {}


def measure_study(study: Study, folder: str | Path, images: int = 64, drawn: int = 2) -> dict[str, Any]:
    """Measure each variant's feature maps and draw a few images; write features.json and features/*.png.

    The weights are those of `trained_cells`. The images are evenly spread over those of the baseline's test set that
    have objects, and are the same for all variants. A variant without trained weights is left out with a warning, and
    keeps measures of the same images that features.json has, for example after merging with an archive; a UserError
    says that no variant has weights. At most `images` images are measured and `drawn` images are drawn. The content of
    features.json is returned.
    """
    folder = Path(folder)
    base = study.config(study.baseline)
    register_custom(base.DATASETS.CUSTOM)
    set_name = base.DATASETS.TEST[0]
    records = images_with_objects(get_dataset_dicts(set_name, where="DATASETS.TEST"), images)
    drawings = _drawings(records, drawn, folder / "features")
    cells = trained_cells(study, folder)
    trained = [(variant, cells[variant.name]) for variant in study.variants if variant.name in cells]
    for variant in study.variants:
        if variant.name not in cells:
            logger.warning("features: %s is left out because no cell of it in %s has weights", variant.name, folder)
    if not trained:
        raise UserError(f"{folder}: no variant has trained weights; run the study first")

    def predictor(variant: Variant, place: CellFolder) -> Predictor:
        cfg = study.config(variant, place.cell.seed)
        cfg.MODEL.WEIGHTS = str(place.weights)
        return Predictor(cfg)

    with argument_names({"predictors": "AXES"}):
        predictors = ((variant.name, predictor(variant, place)) for variant, place in trained)
        before = _measured_before(folder / "features.json")
        found = compare_models(predictors, records, drawings, set_name, folder / "features.json")
    found["seeds"] = {variant.name: place.cell.seed for variant, place in trained}
    if (before.get("set"), before.get("images")) == (found["set"], found["images"]):
        for key in ("variants", "seeds"):
            known = before.get(key, {}) | found[key]
            found[key] = {variant.name: known[variant.name] for variant in study.variants if variant.name in known}
    write_json(folder / "features.json", found)
    return found
