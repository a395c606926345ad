"""The choice of the evaluator by the configuration."""

from __future__ import annotations

from pathlib import Path

from ..config import CfgNode
from ..data.catalog import MetadataCatalog
from ..errors import argument_names, check_choice
from .coco import COCOEvaluator
from .detections import DetectionEvaluator
from .voc import PascalVOCEvaluator

__all__ = ["build_evaluator"]

_OWN_METRIC = {"coco": "coco", "pascal_voc": "voc"}  # evaluator_type in the metadata -> TEST.EVALUATOR
_VOC_METRIC = {"voc": None, "voc_11_point": "11-point", "voc_area": "area"}  # None: the year of the data set decides


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | Path | None = None) -> DetectionEvaluator:
    """Build the evaluator of a data set that `TEST.EVALUATOR` selects.

    "auto" selects the data set's own metric, or COCO's if it has none. "voc" selects "voc_11_point" or "voc_area" by
    the year of the data set. `TEST.DETECTIONS_PER_IMAGE`, the limit of the detector, is also COCO's maxDets.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    kind = check_choice("TEST.EVALUATOR", cfg.TEST.EVALUATOR, ("auto", "coco", *_VOC_METRIC))
    if kind == "auto":
        kind = _OWN_METRIC.get(MetadataCatalog.get(dataset_name).get("evaluator_type"), "coco")
    if kind in _VOC_METRIC:
        return PascalVOCEvaluator(dataset_name, metric=_VOC_METRIC[kind], output_dir=output_dir)
    with argument_names({"max_dets_per_image": "TEST.DETECTIONS_PER_IMAGE"}):
        return COCOEvaluator(dataset_name, output_dir=output_dir, max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE)
