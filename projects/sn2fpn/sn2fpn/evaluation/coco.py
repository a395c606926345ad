"""COCO's box and mask metrics: average precision and recall over ten IoU thresholds and by object size."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..data.catalog import category_ids
from ..errors import ArgumentError, check_choice
from ..ranges import check_limit
from .detections import DetectionEvaluator, ImageDetections, ImageId
from .evaluator import Results
from .ground_truth import coco_ground_truth
from .matching import RECALL_POINTS, Found, Objects, rank
from .resampling import JudgedDetections

__all__ = ["COCOEvaluator"]

logger = logging.getLogger(__name__)

TASKS = ("bbox", "segm")


class COCOEvaluator(DetectionEvaluator):
    """An evaluator that computes COCO's AP and AR of boxes and masks, for any data set. They are those of pycocotools.

    Results are `{"bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl",
    "AP-<class>", …}, "segm": {…}}` in percent. The APs are those of Detectron2, which gives no AR. AR is the recall as
    the mean over the IoU thresholds and the classes, with at most 1, 10 or `max_dets_per_image` detections. The size of
    a detection is that of its box for "bbox" and that of its mask for "segm". A size or a class without ground truth is
    NaN, which `results_table` prints as "no gt", and does not count in any mean. A model without detections gets NaN
    for all of them but those of single classes, which are left out, as in Detectron2, with a warning; `judge` gives 0
    for it. The detections are also written as COCO JSON.

    Args:
        dataset_name: a registered data set; see `coco_ground_truth` for its objects.
        tasks: "bbox" (boxes) and "segm" (masks). None selects boxes, and masks if the model predicts them and the data
            set has them; a warning says that a data set has none.
        distributed: gather the detections of all processes; False scores the detections of this process.
        output_dir: the folder for `coco_instances_results.json`; None writes no file.
        max_dets_per_image: number of detections that count per image and class, by descending score (COCO's maxDets);
            None means 100, and -1 means all.

    Raises:
        ArgumentError: a task is unknown, or `max_dets_per_image` is neither -1 nor at least 1. `evaluate` raises it if
                "segm" is asked for and the model or the data set has no masks.

    Attributes:
        SCORES: the names of each task's scores, without those of single classes.
        CLASS_SCORES: the names of the scores of a class, which are called "<score>-<class>".
    """

    SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")
    CLASS_SCORES = ("AP",)

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
        self._tasks = None if tasks is None else tuple(tasks)
        for task in self._tasks or ():
            check_choice("tasks", task, TASKS)
        limit = 100 if max_dets_per_image is None else check_limit("max_dets_per_image", max_dets_per_image)
        self._max_dets = sys.maxsize if limit < 0 else limit

    @cached_property
    def _truth(self) -> dict[str, Any]:
        return coco_ground_truth(self.records, category_ids(self._dataset_name), self.class_names)

    @cached_property
    def _order(self) -> dict[ImageId, int]:
        """The positions of the images by their ids, in which equal scores are ranked.

        They follow the ids, as in pycocotools, unless some ids are text and some are numbers.
        """
        ids = [record["image_id"] for record in self.records]
        mixed = len({isinstance(i, str) for i in ids}) > 1
        return {image_id: position for position, image_id in enumerate(ids if mixed else sorted(ids))}

    def _score(self, detections: list[ImageDetections]) -> Results:
        if not any(len(d.scores) for d in detections):  # Detectron2 gives no number then
            return {task: dict.fromkeys(self.SCORES, math.nan) for task in self._tasks_for(detections)}
        scores = {task: judged.scores() for task, judged in self._judge(detections).items()}
        names = [*self.SCORES, *(f"{score}-{name}" for name in self.class_names for score in self.CLASS_SCORES)]
        return {task: {name: float(of_task[name][0]) for name in names} for task, of_task in scores.items()}

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        if not any(len(d.scores) for d in detections):  # which may come from a model with masks
            detections = [d._replace(masks=[]) for d in detections]
        recalls = {"AR1": 1, "AR10": 10, "AR": self._max_dets}
        judged = {}
        for task in self._tasks_for(detections):
            objects, found = self._objects(task == "segm"), self._found(detections, task == "segm")
            logger.info("scoring %d detections (%s)", len(found.score), task)
            rankings = rank(objects, found, len(self._order), len(self.class_names), self._max_dets)
            judged[task] = JudgedDetections(self.class_names, rankings, RECALL_POINTS, recalls)
        return judged

    def _tasks_for(self, detections: list[ImageDetections]) -> tuple[str, ...]:
        """Return the tasks that were asked for, or those that both the model and the data set have."""
        masks = all(d.masks is not None for d in detections) and bool(detections)
        truth = any(a["segmentation"] for a in self._truth["annotations"])
        if self._tasks is None:
            if masks and not truth:
                logger.warning("data set %r has no masks, so only boxes are evaluated", self._dataset_name)
            return TASKS if masks and truth else ("bbox",)
        if "segm" in self._tasks and not (masks and truth):
            without = "the model predicts" if truth else f"data set {self._dataset_name!r} has"
            raise ArgumentError("tasks", f"'segm' needs masks, but {without} none")
        return self._tasks

    def _objects(self, with_masks: bool) -> Objects:
        truth, classes = self._truth["annotations"], {own: c for c, own in enumerate(category_ids(self._dataset_name))}
        masks = None
        if with_masks:
            if without := sum(not a["segmentation"] for a in truth):
                logger.warning("%d objects of %r have no mask and do not count for segm", without, self._dataset_name)
            truth = [a for a in truth if a["segmentation"]]
            sizes = {image["id"]: (image["height"], image["width"]) for image in self._truth["images"]}
            masks = _array_of([_rle(a["segmentation"], *sizes[a["image_id"]]) for a in truth])
        return Objects(
            image=np.array([self._order[a["image_id"]] for a in truth], np.int64),
            label=np.array([classes[a["category_id"]] for a in truth], np.int64),
            area=np.array([a["area"] for a in truth], np.float64),
            boxes=np.array([a["bbox"] for a in truth], np.float64).reshape(-1, 4),
            masks=masks,
            crowd=np.array([a["iscrowd"] for a in truth], bool),
        )

    def _found(self, detections: list[ImageDetections], with_masks: bool) -> Found:
        corners = np.concatenate([np.empty((0, 4)), *(d.boxes for d in detections)])
        corners = corners.astype(detections[0].boxes.dtype if detections else np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float64)
        masks = _array_of([mask for d in detections for mask in d.masks or ()]) if with_masks else None
        areas = boxes[:, 2] * boxes[:, 3] if masks is None else [float(coco_mask.area(mask)) for mask in masks]
        numbers = [len(d.scores) for d in detections]
        return Found(
            image=np.repeat(np.array([self._order[d.image_id] for d in detections], np.int64), numbers),
            label=np.concatenate([np.empty(0, np.int64), *(d.classes for d in detections)]),
            area=np.asarray(areas, np.float64),
            boxes=boxes,
            masks=masks,
            score=np.concatenate([np.empty(0), *(d.scores for d in detections)]),
        )


def _rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return a mask, given as polygons or as run lengths, as compressed run lengths."""
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        return segmentation
    encoded = coco_mask.frPyObjects(segmentation, height, width)
    return encoded if isinstance(segmentation, dict) else coco_mask.merge(encoded)


def _array_of(items: list[dict[str, Any]]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array
