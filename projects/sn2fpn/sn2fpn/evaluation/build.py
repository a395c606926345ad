"""The evaluator that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from ..config import CfgNode
from ..data.catalog import MetadataCatalog
from ..errors import UserError, did_you_mean
from .coco import COCOEvaluator
from .detections import DetectionEvaluator
from .voc import PascalVOCEvaluator

__all__ = ["build_evaluator"]

_OWN_METRIC = {"coco": "coco", "pascal_voc": "voc"}  # evaluator_type in the metadata -> TEST.EVALUATOR
_VOC_METRIC = {"voc": None, "voc_11_point": "11-point", "voc_area": "area"}  # None: by the set's year


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | Path | None = None) -> DetectionEvaluator:
    """`TEST.EVALUATOR` for a data set; "auto" takes the set's own metric, COCO's where it names none.

    "voc" chooses between "voc_11_point" and "voc_area" by the set's year.

    `TEST.DETECTIONS_PER_IMAGE`, the detector's limit, is also COCO's maxDets.

    Raises:
        UserError: unknown `TEST.EVALUATOR`.
    """
    kind = cfg.TEST.EVALUATOR
    if kind == "auto":
        kind = _OWN_METRIC.get(MetadataCatalog.get(dataset_name).get("evaluator_type"), "coco")
    if kind == "coco":
        return COCOEvaluator(dataset_name, output_dir=output_dir, max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE)
    if kind in _VOC_METRIC:
        return PascalVOCEvaluator(dataset_name, metric=_VOC_METRIC[kind], output_dir=output_dir)
    known = ("auto", "coco", *_VOC_METRIC)
    raise UserError(f"TEST.EVALUATOR: unknown metric {kind!r}{did_you_mean(kind, known)}")
