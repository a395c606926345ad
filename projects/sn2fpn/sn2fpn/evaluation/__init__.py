"""Evaluation: evaluators for COCO's and Pascal VOC's metrics, the inference loop, and tables of results."""

from .build import build_evaluator, check_evaluator, score_names
from .coco import TASKS, COCOEvaluator
from .evaluator import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from .resampling import JudgedDetections, draw_images
from .tables import copypaste_lines, results_table
from .voc import PascalVOCEvaluator

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "JudgedDetections",
    "PascalVOCEvaluator",
    "TASKS",
    "build_evaluator",
    "check_evaluator",
    "copypaste_lines",
    "draw_images",
    "inference_on_dataset",
    "results_table",
    "score_names",
]
