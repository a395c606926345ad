"""Detectron2's `evaluation`: evaluators and the loop that feeds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation import COCOEvaluator as _COCOEvaluator
from ..evaluation import DatasetEvaluator, DatasetEvaluators, PascalVOCEvaluator, copypaste_lines, inference_on_dataset
from .absent import absent

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "PascalVOCDetectionEvaluator",
    "inference_on_dataset",
    "print_csv_format",
]

__getattr__ = absent(__name__, __all__)

PascalVOCDetectionEvaluator = PascalVOCEvaluator


class COCOEvaluator(_COCOEvaluator):
    """The evaluator of COCO's metrics with Detectron2's arguments.

    Args:
        dataset_name: a registered data set.
        tasks: "bbox" and "segm", or None for what the model predicts. A configuration stands for None, as in
            Detectron2's older scripts.
        distributed: gather the detections of all processes.
        output_dir: the folder for `coco_instances_results.json`; None writes no file.
        max_dets_per_image: number of detections that count per image and class; None means 100.
        use_fast_impl: has no effect, because there is one implementation, with pycocotools' results.
        allow_cached_coco: has no effect, because data sets are read from where they are registered.
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
        allow_cached_coco: bool = True,
    ) -> None:
        chosen = None if isinstance(tasks, Mapping) else tasks
        super().__init__(
            dataset_name, chosen, distributed=distributed, output_dir=output_dir, max_dets_per_image=max_dets_per_image
        )


def print_csv_format(results: dict[str, dict[str, float]]) -> None:
    """Print the scores of each task in lines that spreadsheets take."""
    for line in copypaste_lines(results):
        print(line)
