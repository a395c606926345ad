"""COCO's box and mask metrics: average precision and recall over ten IoU thresholds and by object size."""

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

from ..errors import ArgumentError, check_choice
from .detections import DetectionEvaluator, ImageDetections, ImageId, to_coco_results
from .evaluator import Results
from .ground_truth import coco_ground_truth
from .resampling import JudgedDetections, Ranking

__all__ = ["COCOEvaluator"]

logger = logging.getLogger(__name__)

TASKS = ("bbox", "segm")
_ALL_AREAS = 0  # positions in COCOeval's area ranges all, small, medium, large
_SIZES = ("", "s", "m", "l")  # the endings of their metrics' names
_IOU_50, _IOU_75 = 0, 5  # positions in COCOeval's thresholds 0.50, 0.55, …, 0.95
_FEW = {"AR1": 1, "AR10": 10}  # numbers of detections per image and class that these recalls count


class COCOEvaluator(DetectionEvaluator):
    """An evaluator that computes COCO's AP and AR of boxes and masks with pycocotools, for any data set.

    Results are `{"bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl",
    "AP-<class>", …}, "segm": {…}}` in percent. The APs are those of Detectron2, which gives no AR. AR is the recall as
    the mean over the IoU thresholds and the classes, with at most 1, 10 or `max_dets_per_image` detections. The size of a detection is that of its box for "bbox" and that of its mask for "segm". A size or a class
    without ground truth is NaN, which `results_table` prints as "no gt", and does not count in any mean. A model
    without detections gets NaN for all of them, as in Detectron2, with a warning. The detections are also written
    as COCO JSON.

    Args:
        dataset_name: a registered data set; see `coco_ground_truth` for its objects.
        tasks: "bbox" (boxes) and "segm" (masks). None selects boxes, and masks if the model predicts them and the data
            set has them; a warning says that a data set has none.
        distributed: gather the detections of all processes; False scores the detections of this process.
        output_dir: the folder for `coco_instances_results.json`; None writes no file.
        max_dets_per_image: number of detections that count per image and class, by descending score (COCO's maxDets);
            None means 100.

    Raises:
        ArgumentError: a task is unknown, or `max_dets_per_image` is less than 1. `evaluate` raises it if "segm" is
                asked for and the model or the data set has no masks.

    Attributes:
        SCORES: the names of each task's scores, without those of single classes.
    """

    SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")

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
        self._max_dets = 100 if max_dets_per_image is None else max_dets_per_image
        if self._max_dets < 1:
            raise ArgumentError("max_dets_per_image", f"expected at least 1, found {self._max_dets}")

    @cached_property
    def _truth(self) -> dict[str, Any]:
        return coco_ground_truth(self._records, self._dataset_category_ids(), self._class_names)

    @cached_property
    def _sortable(self) -> dict[ImageId, ImageId]:
        """The image ids by themselves, or positions instead if some are text and some numbers; COCOeval sorts them."""
        ids = [record["image_id"] for record in self._records]
        mixed = len({isinstance(i, str) for i in ids}) > 1
        return dict(zip(ids, range(len(ids)) if mixed else ids))

    def _score(self, detections: list[ImageDetections]) -> Results:
        results = to_coco_results(detections, self._dataset_category_ids())
        return {task: self._derive(*self._accumulate(results, task)) for task in self._tasks_for(detections)}

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        results = to_coco_results(detections, self._dataset_category_ids())
        judged = {}
        for task in self._tasks_for(detections):
            if results:
                evaluation = self._match(results, task)
                images = evaluation.evalImgs  # by class, area and image; None if an image has nothing of the class
                shape = (len(evaluation.params.catIds), len(_SIZES), len(evaluation.params.imgIds))
                starts = np.arange(len(images)).reshape(shape)[self._columns(evaluation), :, 0]
                rankings = {
                    size: [_rank(images[s : s + shape[2]]) for s in starts[:, a]] for a, size in enumerate(_SIZES)
                }
            else:  # no object counts, so that every score is NaN, as in `_derive`
                nothing = _rank([None] * len(self._records))
                rankings = {size: [nothing] * len(self._class_names) for size in _SIZES}
            recalls = {**_FEW, "AR": self._max_dets}
            judged[task] = JudgedDetections(self._class_names, rankings, Params().recThrs, recalls)
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

    def _accumulate(self, results: list[dict[str, Any]], task: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Compute precision and recall, arrays over (IoU thresholds, recall points, classes, areas, detections) and
        (IoU thresholds, classes, areas, detections), where the last axis is that of the numbers of detections.

        They are -1 where there is no ground truth. Without results, they are None.
        """
        if not results:
            return None, None
        evaluation = self._match(results, task)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints progress
            evaluation.accumulate()
        columns = self._columns(evaluation)
        return evaluation.eval["precision"][..., -1][:, :, columns], evaluation.eval["recall"][:, columns]

    def _columns(self, evaluation: COCOeval) -> np.ndarray:
        """Return the positions of the classes in COCOeval, which sorts the categories by their ids."""
        return np.searchsorted(evaluation.params.catIds, self._dataset_category_ids())

    def _match(self, results: list[dict[str, Any]], task: str) -> COCOeval:
        """Match detections (at least one) with objects, image by image."""
        truth = self._truth["annotations"]
        if task == "segm":
            areas = [float(coco_mask.area(r["segmentation"])) for r in results]  # the area of a long list overflows
            if without := sum(not a["segmentation"] for a in truth):
                truth = [a for a in truth if a["segmentation"]]
                logger.warning("%d objects of %r have no mask and do not count for segm", without, self._dataset_name)
        else:
            areas = [r["bbox"][2] * r["bbox"][3] for r in results]
        truth, found, images = (self._with_sortable(x) for x in (truth, results, self._truth["images"]))
        found = [{**r, "id": n, "area": area, "iscrowd": 0} for n, (r, area) in enumerate(zip(found, areas), start=1)]
        logger.info("scoring %d detections with pycocotools (%s)", len(found), task)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints progress
            evaluation = COCOeval(
                _index({**self._truth, "images": images, "annotations": truth}),
                _index({**self._truth, "images": images, "annotations": found}),
                task,
            )
            evaluation.params.maxDets = [*(min(few, self._max_dets) for few in _FEW.values()), self._max_dets]
            evaluation.evaluate()
        return evaluation

    def _with_sortable(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return images, objects or results with image ids that COCOeval can sort."""
        if all(i == number for i, number in self._sortable.items()):
            return items
        key = "image_id" if items and "image_id" in items[0] else "id"
        return [{**item, key: self._sortable[item[key]]} for item in items]

    def _derive(self, precision: np.ndarray | None, recall: np.ndarray | None) -> dict[str, float]:
        if precision is None or recall is None:
            return dict.fromkeys(self.SCORES, float("nan"))
        every_size = precision[..., _ALL_AREAS]
        scores = {
            "AP": _percent(every_size),
            "AP50": _percent(every_size[_IOU_50]),
            "AP75": _percent(every_size[_IOU_75]),
        }
        scores |= {f"AP{size}": _percent(precision[..., area]) for area, size in enumerate(_SIZES) if size}
        scores |= {name: _percent(recall[..., _ALL_AREAS, few]) for few, name in enumerate(_FEW)}
        scores |= {f"AR{size}": _percent(recall[..., area, -1]) for area, size in enumerate(_SIZES)}
        scores |= {f"AP-{name}": _percent(every_size[:, :, c]) for c, name in enumerate(self._class_names)}
        return scores


def _rank(images: list[dict[str, Any] | None]) -> Ranking:
    """Collect COCOeval's matches in the images of one class, in the order in which it accumulates them."""
    some = [(i, x) for i, x in enumerate(images) if x is not None]
    objects = np.zeros(len(images), np.int64)
    for i, x in some:
        objects[i] = np.count_nonzero(np.asarray(x["gtIgnore"]) == 0)
    if not some:
        none = np.empty(0, np.int64)
        return Ranking(none, *(np.empty((10, 0), bool),) * 2, objects, none)
    scores = np.concatenate([x["dtScores"] for _, x in some])
    order = np.argsort(-scores, kind="mergesort")
    numbers = [len(x["dtScores"]) for _, x in some]
    image, place = np.repeat([i for i, _ in some], numbers), np.concatenate([np.arange(n) for n in numbers])
    matched, ignored = (
        np.concatenate([x[key].astype(bool) for _, x in some], axis=1)[:, order] for key in ("dtMatches", "dtIgnore")
    )
    return Ranking(image[order], matched & ~ignored, ~ignored, objects, place[order])


def _percent(values: np.ndarray) -> float:
    """Return the mean in percent of the values that have ground truth, or NaN if none has."""
    known = values[values > -1]
    return float(known.mean() * 100) if known.size else float("nan")


def _index(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco
