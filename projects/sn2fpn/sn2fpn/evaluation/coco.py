"""COCO's box and mask metrics: average precision over ten IoU thresholds, 101 recall points and object sizes."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from ..errors import UserError, did_you_mean
from .detections import DetectionEvaluator, ImageDetections, to_coco_results
from .evaluator import Results
from .ground_truth import coco_ground_truth
from .resampling import JudgedDetections, Ranking

__all__ = ["COCOEvaluator"]

logger = logging.getLogger(__name__)

TASKS = ("bbox", "segm")
_ALL_AREAS = 0  # positions in COCOeval's area ranges: all, small, medium, large
_SIZES = ("", "s", "m", "l")  # how they end a metric's name
_IOU_50, _IOU_75 = 0, 5  # positions in its thresholds 0.50, 0.55, …, 0.95


class COCOEvaluator(DetectionEvaluator):
    """Box and mask AP by pycocotools, on any data set with boxes (and masks).

    Results are `{"bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-<class>", …}, "segm": {…}}` in percent,
    as in Detectron2. The size of a detection is that of its box, for "segm" that of its mask. What has no
    ground truth (a size, a class) is NaN, which `results_table` prints as "no gt", and counts in no mean.
    A model without a single detection gets NaN for all six, with a warning; this, too, is Detectron2's
    answer. Detections are also written as COCO JSON.

    Args:
        dataset_name: a registered data set; `coco_ground_truth` says what its objects are.
        tasks: "bbox" and "segm" (masks); None: boxes, and masks where the model has them. Masks on a data set
            without any are left out with a warning; when asked for, they are an error.
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
        self._tasks = None if tasks is None else tuple(tasks)
        for task in self._tasks or ():
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
        return {task: self._derive(self._precision(results, task)) for task in self._tasks_for(detections)}

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        results = to_coco_results(detections, self._dataset_category_ids())
        judged = {}
        for task in self._tasks_for(detections):
            if results:
                evaluation = self._match(results, task)
                images = evaluation.evalImgs  # by class, area and image; None where an image has nothing of the class
                shape = (len(evaluation.params.catIds), len(_SIZES), len(evaluation.params.imgIds))
                starts = np.arange(len(images)).reshape(shape)[self._columns(evaluation), :, 0]
                rankings = {
                    size: [_rank(images[s : s + shape[2]]) for s in starts[:, a]] for a, size in enumerate(_SIZES)
                }
            else:  # no object counts: every score is NaN, as in `_derive`
                nothing = Ranking(
                    np.empty(0, np.int64), *(np.empty((10, 0), bool),) * 2, np.zeros(len(self._records), np.int64)
                )
                rankings = {size: [nothing] * len(self._class_names) for size in _SIZES}
            judged[task] = JudgedDetections(self._class_names, rankings, Params().recThrs)
        return judged

    def _tasks_for(self, detections: list[ImageDetections]) -> tuple[str, ...]:
        """The tasks asked for, or those that model and data set both serve."""
        masks = all(d.masks is not None for d in detections) and bool(detections)
        truth = any(a["segmentation"] for a in self._truth["annotations"])
        if self._tasks is None:
            if masks and not truth:
                logger.warning("data set %r has no masks: box AP alone", self._dataset_name)
            return TASKS if masks and truth else ("bbox",)
        if "segm" in self._tasks and not (masks and truth):
            without = "the model predicts" if truth else f"data set {self._dataset_name!r} has"
            raise UserError(f"COCOEvaluator: task 'segm' needs masks, but {without} none")
        return self._tasks

    def _precision(self, results: list[dict[str, Any]], task: str) -> np.ndarray | None:
        """(IoU thresholds, recall points, classes, areas) precision, -1 where there is no ground truth.

        None when there are no results.
        """
        if not results:
            return None
        evaluation = self._match(results, task)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation.accumulate()
        return evaluation.eval["precision"][..., 0][:, :, self._columns(evaluation)]

    def _columns(self, evaluation: COCOeval) -> np.ndarray:
        """Where each class is: COCOeval sorts the categories by id; classes follow the contiguous ids."""
        return np.searchsorted(evaluation.params.catIds, self._dataset_category_ids())

    def _match(self, results: list[dict[str, Any]], task: str) -> COCOeval:
        """An evaluation of results (at least one) that has matched detections and objects image by image."""
        truth = self._truth["annotations"]
        if task == "segm":
            areas = [float(coco_mask.area(r["segmentation"])) for r in results]  # of a long list at once it overflows
            if without := sum(not a["segmentation"] for a in truth):
                truth = [a for a in truth if a["segmentation"]]
                logger.warning("%d objects of %r have no mask and do not count in segm", without, self._dataset_name)
        else:
            areas = [r["bbox"][2] * r["bbox"][3] for r in results]
        found = [{**r, "id": n, "area": area, "iscrowd": 0} for n, (r, area) in enumerate(zip(results, areas), start=1)]
        logger.info("scoring %d detections with pycocotools (%s)", len(found), task)  # a minute for COCO's 5,000 images
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation = COCOeval(
                _index({**self._truth, "annotations": truth}), _index({**self._truth, "annotations": found}), task
            )
            evaluation.params.maxDets = [self._max_dets]
            evaluation.evaluate()
        return evaluation

    def _derive(self, precision: np.ndarray | None) -> dict[str, float]:
        if precision is None:
            return dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), float("nan"))
        every_size = precision[..., _ALL_AREAS]
        scores = {
            "AP": _percent(every_size),
            "AP50": _percent(every_size[_IOU_50]),
            "AP75": _percent(every_size[_IOU_75]),
        }
        scores |= {name: _percent(precision[..., area]) for area, name in enumerate(("APs", "APm", "APl"), 1)}
        scores |= {f"AP-{name}": _percent(every_size[:, :, c]) for c, name in enumerate(self._class_names)}
        return scores


def _rank(images: list[dict[str, Any] | None]) -> Ranking:
    """What COCOeval says of the images of a class, in the order in which it accumulates."""
    some = [(i, x) for i, x in enumerate(images) if x is not None]
    objects = np.zeros(len(images), np.int64)
    for i, x in some:
        objects[i] = np.count_nonzero(np.asarray(x["gtIgnore"]) == 0)
    if not some:
        return Ranking(np.empty(0, np.int64), *(np.empty((10, 0), bool),) * 2, objects)
    scores = np.concatenate([x["dtScores"] for _, x in some])
    order = np.argsort(-scores, kind="mergesort")
    image = np.repeat([i for i, _ in some], [len(x["dtScores"]) for _, x in some])
    matched, ignored = (
        np.concatenate([x[key].astype(bool) for _, x in some], axis=1)[:, order] for key in ("dtMatches", "dtIgnore")
    )
    return Ranking(image[order], matched & ~ignored, ~ignored, objects)


def _percent(precision: np.ndarray) -> float:
    """Mean in percent of what has ground truth; NaN where nothing has."""
    known = precision[precision > -1]
    return float(known.mean() * 100) if known.size else float("nan")


def _index(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco
