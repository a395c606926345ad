"""The choice of the evaluator by the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import CfgNode
from ..data.catalog import MetadataCatalog, class_names, is_slice
from ..errors import argument_names, check_choice
from .coco import TASKS, COCOEvaluator
from .detections import DetectionEvaluator
from .voc import PascalVOCEvaluator

__all__ = ["build_evaluator", "check_evaluator", "score_names"]

_OWN_METRIC = {"coco": "coco", "pascal_voc": "voc"}  # evaluator_type in the metadata -> TEST.EVALUATOR
_VOC_METRIC = {"voc": None, "voc_11_point": "11-point", "voc_area": "area"}  # None: the year of the data set decides


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | Path | None = None) -> DetectionEvaluator:
    """Build the evaluator of a data set that `TEST.EVALUATOR` selects.

    "auto" selects the data set's own metric, or COCO's if it has none. "voc" selects "voc_11_point" or "voc_area" by
    the year of the data set. `TEST.DETECTIONS_PER_IMAGE`, the limit of the detector, is also COCO's maxDets.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    class_names(dataset_name)  # what a data set that has just appeared is evaluated with is known when it is read
    kind = _kind(cfg, dataset_name)
    if kind in _VOC_METRIC:
        return PascalVOCEvaluator(dataset_name, metric=_VOC_METRIC[kind], output_dir=output_dir)
    with argument_names({"max_dets_per_image": "TEST.DETECTIONS_PER_IMAGE"}):
        return COCOEvaluator(dataset_name, output_dir=output_dir, max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE)


def check_evaluator(cfg: CfgNode) -> None:
    """Raise an ArgumentError unless `TEST.EVALUATOR` is a known kind."""
    check_choice("TEST.EVALUATOR", cfg.TEST.EVALUATOR, ("auto", "coco", *_VOC_METRIC))


def score_names(cfg: CfgNode, dataset_name: str, classes: Sequence[str] = ()) -> list[str]:
    """Return the names of the scores that `build_evaluator(cfg, dataset_name)` gives, with those of some classes.

    The scores of masks are among them if the model predicts masks and the evaluator takes them.

    Example:
        >>> from sn2fpn.config import get_cfg
        >>> from sn2fpn.evaluation import score_names
        >>> score_names(get_cfg(), "coco_2017_val")[:6]
        ['bbox/AP', 'bbox/AP50', 'bbox/AP75', 'bbox/APs', 'bbox/APm', 'bbox/APl']
    """
    of_voc = _kind(cfg, dataset_name) in _VOC_METRIC
    evaluator: type[DetectionEvaluator] = PascalVOCEvaluator if of_voc else COCOEvaluator
    names = [*evaluator.SCORES, *(f"{score}-{name}" for name in classes for score in evaluator.CLASS_SCORES)]
    tasks = TASKS if cfg.MODEL.MASK_ON and not of_voc else TASKS[:1]
    return [f"{task}/{name}" for task in tasks for name in names]


def _kind(cfg: CfgNode, dataset_name: str) -> str:
    check_evaluator(cfg)
    if cfg.TEST.EVALUATOR != "auto":
        return cfg.TEST.EVALUATOR
    whole = dataset_name.partition("[")[0] if is_slice(dataset_name) else dataset_name
    return _OWN_METRIC.get(MetadataCatalog.get(whole).get("evaluator_type"), "coco")
