"""The measures of a whole study: every variant on the same pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data import get_dataset_dicts, register_custom
from ...errors import UserError
from ...predict.predictor import Predictor
from .drawing import draw_views
from .examine import build_mapper, examine, spread
from .look import Measures
from .results import write_results
from .view import View

if TYPE_CHECKING:
    from ..file import Study

__all__ = ["measure_study"]

logger = logging.getLogger(__name__)


def measure_study(study: Study, folder: str | Path, images: int = 64, drawn: int = 2) -> dict[str, Any]:
    """Measure each variant's pyramid and draw a few pictures; writes features.json and features/*.png.

    The weights are those of the first seed, the pictures are spread evenly over those of the baseline's test set
    that have objects, the same for all variants. A variant without a finished first seed is left out with a warning.

    Args:
        study: what was run.
        folder: of the study.
        images: pictures to measure, at most.
        drawn: pictures to draw, at most, each with all variants side by side.

    Returns:
        The contents of features.json: {variant: {level: {measure: value or None}}, "images": …, "set": …}; see
        `look.measure` for the measures.

    Raises:
        UserError: no variant has weights; or the set or a configuration cannot be read.
    """
    folder, seed = Path(folder), study.seeds[0]
    base = study.config(study.baseline, seed)
    register_custom(base.DATASETS.CUSTOM)
    set_name = base.DATASETS.TEST[0]
    records = get_dataset_dicts(set_name, where="DATASETS.TEST")
    records = [r for r in records if r["annotations"]] or records
    records = [records[i] for i in spread(len(records), images)]
    shown = spread(len(records), drawn)
    measures: dict[str, dict[str, Measures]] = {}
    views: dict[str, list[View]] = {}
    for variant in study.variants:
        weights = folder / "cells" / variant.name / f"seed{seed}" / "model_final.pth"
        if not weights.is_file():
            logger.warning("features: %s is left out, as %s is not there", variant.name, weights)
            continue
        cfg = study.config(variant, seed)
        cfg.MODEL.WEIGHTS = str(weights)
        predictor = Predictor(cfg)
        mapper = build_mapper(predictor.model, predictor.resize)
        measures[variant.name], views[variant.name] = examine(predictor.model, mapper, records, shown)
        logger.info("features: %s measured on %d pictures", variant.name, len(records))
    if not measures:
        raise UserError(f"{folder}: no variant has cells/<variant>/seed{seed}/model_final.pth; run the study first")
    for k, i in enumerate(shown):
        stem = Path(records[i]["file_name"]).stem
        draw_views({name: v[k] for name, v in views.items()}, folder / "features" / f"{stem}.png", stem)
    return write_results(measures, len(records), set_name, folder / "features.json")
