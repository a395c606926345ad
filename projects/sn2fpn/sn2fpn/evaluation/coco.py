"""COCO's box metric: average precision over ten IoU thresholds, 101 recall points and object sizes."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import UserError, did_you_mean
from .detections import DetectionEvaluator, ImageDetections, to_coco_results
from .evaluator import Results
from .ground_truth import coco_ground_truth

__all__ = ["COCOEvaluator"]

logger = logging.getLogger(__name__)

TASKS = ("bbox",)
_ALL_AREAS = 0  # positions in COCOeval's area ranges: all, small, medium, large
_IOU_50, _IOU_75 = 0, 5  # positions in its thresholds 0.50, 0.55, …, 0.95


class COCOEvaluator(DetectionEvaluator):
    """Box AP by pycocotools, on any data set with boxes.

    Results are `{"bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-<class>", …}}` in percent, as
    in Detectron2. What has no ground truth (a size, a class) is NaN, which `results_table` prints as
    "no gt", and counts in no mean. A model without a single detection gets NaN for all six, with a
    warning; this, too, is Detectron2's answer. Detections are also written as COCO JSON.

    Args:
        dataset_name: a registered data set; `coco_ground_truth` says what its objects are.
        tasks: what to score; None: all that is known, which is `("bbox",)`.
        distributed: gather the detections of all processes; False: score this process's alone.
        output_dir: where `coco_instances_results.json` is written; None: nowhere.
        max_dets_per_image: detections that count per image and class (COCO's maxDets), best first;
            None: 100.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | Path | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        super().__init__(dataset_name, output_dir, distributed=distributed)
        self._tasks = TASKS if tasks is None else tuple(tasks)
        for task in self._tasks:
            if task not in TASKS:
                raise UserError(f"COCOEvaluator: unknown task {task!r}{did_you_mean(task, TASKS)}")
        self._max_dets = 100 if max_dets_per_image is None else max_dets_per_image
        if self._max_dets < 1:
            raise UserError(f"COCOEvaluator: max_dets_per_image must be at least 1, found {self._max_dets}")

    @cached_property
    def _truth(self) -> dict[str, Any]:
        return coco_ground_truth(self._records, self._dataset_category_ids(), self._class_names)

    def _score(self, detections: list[ImageDetections]) -> Results:
        results = to_coco_results(detections, self._dataset_category_ids())
        return {task: self._derive(self._precision(results, task)) for task in self._tasks}

    def _precision(self, results: list[dict[str, Any]], task: str) -> np.ndarray | None:
        """(IoU thresholds, recall points, classes, areas) precision, -1 where there is no ground truth.

        None when there are no results.
        """
        if not results:
            return None
        for number, result in enumerate(results, start=1):
            result.update(id=number, area=result["bbox"][2] * result["bbox"][3], iscrowd=0)
        logger.info("scoring %d detections with pycocotools", len(results))  # a minute for COCO's 5,000 images
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation = COCOeval(_index(self._truth), _index({**self._truth, "annotations": results}), task)
            evaluation.params.maxDets = [self._max_dets]
            evaluation.evaluate()
            evaluation.accumulate()
        # COCOeval sorts the categories by id; classes follow the contiguous ids.
        columns = np.searchsorted(evaluation.params.catIds, self._dataset_category_ids())
        return evaluation.eval["precision"][..., 0][:, :, columns]

    def _derive(self, precision: np.ndarray | None) -> dict[str, float]:
        if precision is None:
            return dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), float("nan"))
        every_size = precision[..., _ALL_AREAS]
        scores = {"AP": _percent(every_size), "AP50": _percent(every_size[_IOU_50]),
                  "AP75": _percent(every_size[_IOU_75])}
        scores |= {name: _percent(precision[..., area]) for area, name in enumerate(("APs", "APm", "APl"), 1)}
        scores |= {f"AP-{name}": _percent(every_size[:, :, c]) for c, name in enumerate(self._class_names)}
        return scores


def _percent(precision: np.ndarray) -> float:
    """Mean in percent of what has ground truth; NaN where nothing has."""
    known = precision[precision > -1]
    return float(known.mean() * 100) if known.size else float("nan")


def _index(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco
