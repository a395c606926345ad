"""Detectron2's `evaluation`: evaluators and the loop that feeds them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import CfgNode
from ..evaluation import COCOEvaluator as _COCOEvaluator
from ..evaluation import DatasetEvaluator, DatasetEvaluators, PascalVOCEvaluator, copypaste_lines
from ..evaluation import inference_on_dataset as _inference_on_dataset
from .absent import absent, refuse

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "PascalVOCDetectionEvaluator",
    "inference_on_dataset",
    "print_csv_format",
    "verify_results",
]

__getattr__ = absent(__name__, __all__)

logger = logging.getLogger(__name__)

PascalVOCDetectionEvaluator = PascalVOCEvaluator


class COCOEvaluator(_COCOEvaluator):
    """The evaluator of COCO's metrics with Detectron2's arguments.

    Args:
        dataset_name: a registered data set.
        tasks: "bbox" and "segm", or None for what the model predicts. A configuration stands for None, as in
            Detectron2's older scripts.
        distributed: gather the detections of all processes.
        output_dir: the folder for `coco_instances_results.json`; None writes no file.
        max_dets_per_image: number of detections that count per image and class; None means 100, and -1 means all.
        use_fast_impl: has no effect, because there is one implementation, with pycocotools' results.
        allow_cached_coco: has no effect, because data sets are read from where they are registered.
        kpt_oks_sigmas: must be empty, because there are no keypoints.

    Raises:
        ArgumentError: `kpt_oks_sigmas` is given.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | Mapping[str, Any] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        refuse((), kpt_oks_sigmas=tuple(kpt_oks_sigmas))
        chosen = None if isinstance(tasks, Mapping) else tasks
        super().__init__(
            dataset_name, chosen, distributed=distributed, output_dir=output_dir, max_dets_per_image=max_dets_per_image
        )


def inference_on_dataset(model: Any, data_loader: Any, evaluator: Any, callbacks: Any = None) -> Any:
    """Run a model over a data set and return the results; see `sn2fpn.evaluation.inference_on_dataset`.

    Raises:
        ArgumentError: `callbacks` is given, which this package does not have.
    """
    refuse(None, callbacks=callbacks or None)
    return _inference_on_dataset(model, data_loader, evaluator)


def print_csv_format(results: dict[str, dict[str, float]]) -> None:
    """Print the scores of each task in lines that spreadsheets take."""
    for line in copypaste_lines(results):
        print(line)


def verify_results(cfg: CfgNode, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Compare results with `TEST.EXPECTED_RESULTS`, whose entries are (task, metric, expected score, tolerance).

    Returns:
        True, also if nothing is expected.

    Raises:
        SystemExit: a score is missing, is NaN or differs by more than its tolerance. The log says which ones.
    """
    wrong = []
    for task, metric, expected, tolerance in cfg.TEST.EXPECTED_RESULTS:
        found = results.get(task, {}).get(metric)
        if found is None or not abs(found - expected) <= tolerance:  # a comparison with NaN is False
            wrong.append(f"{task}/{metric}: expected {expected} within {tolerance}, found {found}")
    if wrong:
        logger.error("TEST.EXPECTED_RESULTS: %s", "; ".join(wrong))
        raise SystemExit(1)
    if cfg.TEST.EXPECTED_RESULTS:
        logger.info("The results are those of TEST.EXPECTED_RESULTS")
    return True
