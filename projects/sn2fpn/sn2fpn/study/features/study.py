"""The feature measures of a whole study: every variant on the same images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...data import evenly_spread, get_dataset_dicts, register_custom
from ...errors import UserError
from ...predict.predictor import Predictor
from ..folder import CellFolder
from ..images import images_with_objects
from ..spec.study import Cell, Study
from .examine import examine, write_results
from .maps import Measures
from .sheet import draw_views
from .view import View

__all__ = ["measure_study"]

logger = logging.getLogger(__name__)


def measure_study(study: Study, folder: str | Path, images: int = 64, drawn: int = 2) -> dict[str, Any]:
    """Measure each variant's feature maps and draw a few images; write features.json and features/*.png.

    The weights are those of the first seed. The images are evenly spread over those of the baseline's test set that
    have objects, and are the same for all variants. A variant without trained weights is left out with a warning.

    Args:
        study: The study.
        folder: The study's folder.
        images: Number of images to measure at most.
        drawn: Number of images to draw at most, each with all variants side by side.

    Returns:
        The content of features.json, see `write_results`.

    Raises:
        UserError: No variant has weights, or the test set or a configuration cannot be read.
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
