"""The choice of the evaluator for Detectron2's trainer.

Detectron2's COCO evaluator reads an annotation file by itself, and its VOC evaluator reads XML files. Both would see
other objects than the training where this project's readers repair, skip or clip some, and fail on files that these
readers take. The data sets of this project are therefore evaluated on the objects that its readers return.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, PascalVOCDetectionEvaluator
from detectron2.utils import comm

from ...atomic import atomic_write
from ...data.catalog import DatasetCatalog, category_ids, class_names
from ...errors import UserError
from ...evaluation import PascalVOCEvaluator
from ...evaluation.ground_truth import coco_ground_truth
from ...integrations.detectron2 import is_shared, share_metadata

__all__ = ["build_evaluator"]

logger = logging.getLogger(__name__)

_KINDS = {"coco": "coco", "pascal_voc": "voc"}
"""The value of `TEST.EVALUATOR` for the `evaluator_type` of a data set."""


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: Path) -> Any:
    """Return the evaluator of `TEST.EVALUATOR`; "auto" takes that of the data set's `evaluator_type`.

    It is Detectron2's, except for VOC's metric of data sets that Detectron2 does not have itself.

    Args:
        cfg: the configuration.
        dataset_name: name of the data set.
        output_dir: folder for what the evaluator writes.

    Raises:
        UserError: the data set has another metric, or cannot be read.
    """
    shared = is_shared(dataset_name)
    if shared:
        class_names(dataset_name)  # what a data set that has just appeared is evaluated with is known when it is read
        share_metadata(dataset_name)
    if _kind(cfg, dataset_name) == "coco":
        limit = cfg.TEST.DETECTIONS_PER_IMAGE
        build = partial(
            COCOEvaluator,
            dataset_name,
            output_dir=str(output_dir),
            max_dets_per_image=10**6 if limit < 0 else limit,  # -1 would leave out each image's last detection
        )
        return _on_our_objects(build, dataset_name, output_dir, cfg.MODEL.MASK_ON) if shared else build()
    if not shared and MetadataCatalog.get(dataset_name).get("evaluator_type") == "pascal_voc":
        return PascalVOCDetectionEvaluator(dataset_name)
    if dataset_name in DatasetCatalog:
        return PascalVOCEvaluator(dataset_name, output_dir=output_dir)
    raise UserError(
        f"DATASETS.TEST: VOC's metric needs a data set of VOC or of this project, found {dataset_name!r}; "
        "set TEST.EVALUATOR to coco"
    )


def _kind(cfg: CfgNode, dataset_name: str) -> str:
    if cfg.TEST.EVALUATOR != "auto":
        return cfg.TEST.EVALUATOR
    found = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
    if found not in _KINDS:
        raise UserError(
            f"DATASETS.TEST: there is no evaluator for {dataset_name!r}, whose metric is {found!r}; "
            "set TEST.EVALUATOR to coco or voc"
        )
    return _KINDS[found]


def _on_our_objects(build: partial[COCOEvaluator], dataset_name: str, output_dir: Path, masks: bool) -> Any:
    """Return Detectron2's evaluator on the objects that this project reads.

    Objects without a mask do not count for the metric of masks, where pycocotools would fail, so that each metric has
    an evaluator of its own if there are any.
    """
    records = DatasetCatalog.read(dataset_name)
    truth = coco_ground_truth(records, category_ids(dataset_name), class_names(dataset_name))
    if not all("annotations" in record for record in records):
        del truth["annotations"]  # Detectron2 then writes the detections and computes no score
    objects = truth.get("annotations", ())
    with_masks = [a for a in objects if a["segmentation"]]
    path = output_dir / f"{dataset_name}_coco_format.json"
    if not masks or len(with_masks) == len(objects):
        return _on_file(build, dataset_name, path, truth)
    logger.warning(
        "%d objects of %r have no mask and do not count for segm", len(objects) - len(with_masks), dataset_name
    )
    boxes = _on_file(partial(build, tasks=("bbox",)), dataset_name, path, truth)
    if not with_masks:
        return boxes
    truth["annotations"] = with_masks
    path = output_dir / f"{dataset_name}_coco_format_masks.json"
    return DatasetEvaluators([boxes, _on_file(partial(build, tasks=("segm",)), dataset_name, path, truth)])


def _on_file(build: partial[COCOEvaluator], dataset_name: str, path: Path, truth: dict[str, Any]) -> COCOEvaluator:
    """Write objects to a file, which replaces that of an earlier evaluation, and return an evaluator that reads it."""
    if comm.get_local_rank() == 0:  # on each machine, because their folders may differ
        with atomic_write(path) as file:
            json.dump(truth, file)
    comm.synchronize()
    metadata = vars(MetadataCatalog.get(dataset_name))  # which Detectron2 protects against other values
    of_data_set = {k: metadata.pop(k) for k in ("json_file",) if k in metadata}
    metadata["json_file"] = str(path)
    try:
        return build()
    finally:
        del metadata["json_file"]
        metadata.update(of_data_set)
