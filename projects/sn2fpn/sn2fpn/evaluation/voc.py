"""Pascal VOC's box metric: one match per object, and 11-point (2007) or area (since 2010) average precision.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2.2, and the
development kits of 2007 and 2012. As in Detectron2, detections are rounded as in submissions to the challenge: corners
are 1-based and inclusive with one decimal, and scores have three decimals.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import check_choice
from ..structures import box_of
from .detections import DetectionEvaluator, ImageDetections, ImageId
from .evaluator import Results
from .resampling import JudgedDetections, Ranking, mean_over_classes

__all__ = ["PascalVOCEvaluator"]

logger = logging.getLogger(__name__)

METRICS = ("11-point", "area")
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)
"""The recalls at which the 11-point metric measures the precision."""
_IOU_THRESHOLDS = np.arange(50, 100, 5) / 100.0


class PascalVOCEvaluator(DetectionEvaluator):
    """An evaluator that computes box AP by the rules of Pascal VOC, for any data set.

    A detection is assigned to the object of its class that it overlaps most. It is right if the overlap exceeds the
    threshold and that of no detection with a higher score and the same object does. It does not count if the object is
    difficult. Detections with equal scores keep the order of the data set. Crowd regions of a COCO data set count as
    difficult objects.

    Results are `{"bbox": {"AP", "AP50", "AP75", "AP-<class>", "AP50-<class>", …}}` in percent. AP is the mean over the
    IoU thresholds 0.50, 0.55, …, 0.95. The scores of a class without objects that count are NaN, and the class is left
    out of the means. Detectron2 takes 0 for such a class with the 11-point metric, and may return NaN for the whole
    data set with the area metric. If every class has objects, both agree.

    Args:
        dataset_name: a registered data set.
        metric: "11-point" or "area"; None selects "11-point" for a data set of the year 2007, and "area" otherwise.
        output_dir: the folder for `coco_instances_results.json`; None writes no file.
        distributed: gather the detections of all processes; False scores the detections of this process.

    Raises:
        ArgumentError: `metric` is unknown.

    Attributes:
        SCORES: the names of the scores, without those of single classes.
        CLASS_SCORES: the names of the scores of a class, which are called "<score>-<class>".
    """

    SCORES = ("AP", "AP50", "AP75")
    CLASS_SCORES = ("AP", "AP50")

    def __init__(
        self,
        dataset_name: str,
        *,
        metric: str | None = None,
        output_dir: str | Path | None = None,
        distributed: bool = True,
    ) -> None:
        super().__init__(dataset_name, output_dir, distributed=distributed)
        if metric is None:
            metric = "11-point" if str(self._metadata.get("year")) == "2007" else "area"
        self._eleven_points = check_choice("metric", metric, METRICS) == "11-point"

    @cached_property
    def _objects(self) -> dict[ImageId, _Objects]:
        return {record["image_id"]: _read_objects(record) for record in self.records}

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        rankings = rank(self._objects, detections, len(self.class_names))
        points = RECALL_POINTS if self._eleven_points else None
        return {"bbox": JudgedDetections(self.class_names, {"": rankings}, points, ap50_by_class=True)}

    def _score(self, detections: list[ImageDetections]) -> Results:
        kind = "11-point" if self._eleven_points else "area"
        logger.info("VOC metric of %r: %s average precision", self._dataset_name, kind)
        ap = self._judge(detections)["bbox"].average_precision()[..., 0]  # (classes, thresholds)
        if absent := [name for name, of_class in zip(self.class_names, ap) if np.isnan(of_class[0])]:
            logger.info(
                "classes of %r without ground truth, left out of the mean: %s", self._dataset_name, ", ".join(absent)
            )
        mean = mean_over_classes(ap)
        scores = {"AP": mean.mean(), "AP50": mean[0], "AP75": mean[5]}
        for name, of_class in zip(self.class_names, ap):
            scores |= {f"AP-{name}": of_class.mean(), f"AP50-{name}": of_class[0]}
        return {"bbox": {name: float(score) for name, score in scores.items()}}

    def counts(self, annotation: dict[str, Any]) -> bool:
        return not _is_difficult(annotation)


class _Objects(NamedTuple):
    """The objects of one image."""

    boxes: np.ndarray  # (M, 4) float64 (xmin, ymin, xmax, ymax), 1-based inclusive corners
    classes: np.ndarray  # (M,) int64
    difficult: np.ndarray  # (M,) bool


def rank(objects: dict[ImageId, _Objects], detections: list[ImageDetections], num_classes: int) -> list[Ranking]:
    """Match all detections with objects, and return a ranking per class.

    All detections of an image are compared with its objects at once, because the object that a detection overlaps most
    does not depend on the other detections. The scores only decide which of several detections is assigned to an
    object.

    Args:
        objects: the objects of all images, by image id.
        detections: the detections of some images.
        num_classes: number of classes.
    """
    offsets = np.cumsum([0, *(len(o.classes) for o in objects.values())])  # the ids of the first objects of the images
    first_id = dict(zip(objects, offsets))
    position = {image_id: i for i, image_id in enumerate(objects)}
    all_difficult = np.concatenate([o.difficult for o in objects.values()] or [np.empty(0, bool)])
    counted = np.array([np.bincount(o.classes[~o.difficult], minlength=num_classes) for o in objects.values()])
    counted = counted.reshape(-1, num_classes)

    classes, scores, overlaps, taken, images = [], [], [], [], []
    for found in detections:
        truth = objects[found.image_id]
        overlap, nearest = _best_overlap(voc_corners(found.boxes), found.classes, truth)
        classes.append(found.classes)
        scores.append(voc_scores(found.scores))
        overlaps.append(overlap)
        taken.append(nearest + first_id[found.image_id])
        images.append(np.full(len(found.classes), position[found.image_id]))
    none, no_id = np.empty(0), np.empty(0, np.int64)
    classes_, scores_ = np.concatenate([no_id, *classes]), np.concatenate([none, *scores])
    overlaps_, taken_, images_ = (np.concatenate(x) for x in ([none, *overlaps], [no_id, *taken], [no_id, *images]))

    rankings = []
    for c in range(num_classes):
        mine = np.flatnonzero(classes_ == c)
        mine = mine[np.argsort(-scores_[mine], kind="stable")]
        right, free = _match(overlaps_[mine], taken_[mine], all_difficult)
        rankings.append(Ranking(images_[mine], right, ~free, counted[:, c]))
    return rankings


def voc_corners(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Convert (N, 4) boxes to VOC's 1-based inclusive corners with one decimal, as float64.

    The shift is computed in float32. `np.round` in float64 then returns the number that `f"{value:.1f}"` prints,
    because ten times a float32 value is exact in float64.
    """
    shifted = boxes_xyxy.astype(np.float32) + np.array([1, 1, 0, 0], dtype=np.float32)
    return np.round(shifted.astype(np.float64), 1)


def voc_scores(scores: np.ndarray) -> np.ndarray:
    """Round (N,) float32 scores to three decimals, as float64."""
    return np.round(scores.astype(np.float64), 3)


def _read_objects(record: dict) -> _Objects:
    found = record.get("annotations", ())
    boxes = np.array([box_of(a) for a in found])
    return _Objects(
        boxes.reshape(-1, 4) + np.array([1, 1, 0, 0]),  # readers return 0-based corners
        np.array([a["category_id"] for a in found], dtype=np.int64),
        np.array([_is_difficult(a) for a in found], dtype=bool),
    )


def _is_difficult(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("difficult") or annotation.get("iscrowd"))


def _best_overlap(boxes: np.ndarray, classes: np.ndarray, truth: _Objects) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest IoU of each of N detections with an object of its class (-1 without one), and that object."""
    if not len(truth.classes) or not len(boxes):
        return np.full(len(boxes), -1.0), np.zeros(len(boxes), np.int64)
    top_left = np.maximum(boxes[:, None, :2], truth.boxes[:, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], truth.boxes[:, 2:])
    shared = np.maximum(bottom_right - top_left + 1, 0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    truth_area = (truth.boxes[:, 2:] - truth.boxes[:, :2] + 1).prod(axis=1)
    iou = shared / (area[:, None] + truth_area - shared)  # (N, M)
    iou[classes[:, None] != truth.classes] = -1
    return iou.max(axis=1), iou.argmax(axis=1)


def _match(overlaps: np.ndarray, taken: np.ndarray, difficult: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decide which detections of a class, by descending score, are right and which do not count.

    Args:
        overlaps: (N,) IoU of each detection with the object that it overlaps most.
        taken: (N,) id of that object; without one any number.
        difficult: (all objects,) bool.

    Returns:
        Two arrays of shape (T, N), bool.
    """
    hit = overlaps > _IOU_THRESHOLDS[:, None]  # (T, N)
    free = hit & difficult[np.where(overlaps >= 0, taken, 0)] if len(difficult) else np.zeros_like(hit)
    right = np.zeros_like(hit)
    for t, hits in enumerate(hit & ~free):
        order = np.flatnonzero(hits)
        right[t, order[np.unique(taken[order], return_index=True)[1]]] = True
    return right, free
