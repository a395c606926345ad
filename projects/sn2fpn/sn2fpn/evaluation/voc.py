"""Pascal VOC's box metric: one match per object, 11-point (2007) or area (from 2010) average precision.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2.2,
and the development kits of 2007 and 2012. Detections take the form in which the challenge received them
(corners 1-based and inclusive with one decimal, scores with three), as in Detectron2.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, did_you_mean
from ..structures import BoxMode
from .detections import DetectionEvaluator, ImageDetections, ImageId
from .evaluator import Results
from .resampling import JudgedDetections, Ranking

__all__ = ["PascalVOCEvaluator", "average_precision"]

logger = logging.getLogger(__name__)

METRICS = ("11-point", "area")
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)  # of the 11-point metric
_IOU_THRESHOLDS = np.arange(50, 100, 5) / 100.0


class PascalVOCEvaluator(DetectionEvaluator):
    """Box AP by VOC's rules, on any data set with boxes.

    A detection takes the object of its class that it overlaps most. It is right when the overlap is
    above the threshold and no better-scored detection took the object; it does not count at all when
    the object is difficult. Equal scores keep the data set's order. Crowd boxes of a COCO set are
    treated as difficult objects.

    Results are `{"bbox": {"AP", "AP50", "AP75", "AP-<class>", "AP50-<class>", …}}` in percent; AP is the
    mean over the IoU thresholds 0.50, 0.55, …, 0.95. A class without an object that counts is NaN and left
    out of the means, with a note in the log. Detectron2 takes 0 for it with the 11-point metric and may
    answer NaN for the whole set with the area metric; where every class has objects the two agree.

    Args:
        dataset_name: a registered data set; objects come from its dicts (`difficult` is optional).
        metric: "11-point" or "area"; None: 11 points for a set of the year 2007, else area.
        output_dir: where `coco_instances_results.json` is written; None: nowhere.
        distributed: gather the detections of all processes; False: score this process's alone.
    """

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
        if metric not in METRICS:
            raise UserError(f"PascalVOCEvaluator: unknown metric {metric!r}{did_you_mean(metric, METRICS)}")
        self._eleven_points = metric == "11-point"

    @cached_property
    def _objects(self) -> dict[ImageId, _Objects]:
        return {record["image_id"]: _read_objects(record) for record in self._records}

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        rankings = rank(self._objects, detections, len(self._class_names))
        points = RECALL_POINTS if self._eleven_points else None
        return {"bbox": JudgedDetections(self._class_names, {"": rankings}, points)}

    def _score(self, detections: list[ImageDetections]) -> Results:
        curves = precision_recall(self._objects, detections, len(self._class_names))
        logger.info(
            "VOC metric of %r: %s average precision", self._dataset_name, "11-point" if self._eleven_points else "area"
        )
        ap = np.full((len(_IOU_THRESHOLDS), len(self._class_names)), np.nan)  # in percent
        for c, curve in enumerate(curves):
            if curve is not None:
                ap[:, c] = [
                    100 * average_precision(curve.recall[t], curve.precision[t], self._eleven_points)
                    for t in range(len(_IOU_THRESHOLDS))
                ]
        if absent := [name for name, curve in zip(self._class_names, curves) if curve is None]:
            logger.info("left out of the mean, without ground truth in %r: %s", self._dataset_name, ", ".join(absent))
        known = ap[:, [curve is not None for curve in curves]]
        mean = known.mean(axis=1) if known.size else np.full(len(_IOU_THRESHOLDS), np.nan)
        scores = {"AP": mean.mean(), "AP50": mean[0], "AP75": mean[5]}
        for c, name in enumerate(self._class_names):
            scores |= {f"AP-{name}": ap[:, c].mean(), f"AP50-{name}": ap[0, c]}
        return {"bbox": {name: float(score) for name, score in scores.items()}}


class _Objects(NamedTuple):
    """The objects of one image."""

    boxes: np.ndarray  # (M, 4) float64 (xmin, ymin, xmax, ymax), 1-based inclusive corners
    classes: np.ndarray  # (M,) int64
    difficult: np.ndarray  # (M,) bool


class Curve(NamedTuple):
    """A class's precision and recall after each detection, best score first."""

    recall: np.ndarray  # (IoU thresholds, detections)
    precision: np.ndarray  # (IoU thresholds, detections)


def precision_recall(
    objects: dict[ImageId, _Objects], detections: list[ImageDetections], num_classes: int
) -> list[Curve | None]:
    """Follow each class down its scores; None for a class without objects."""
    return [_follow(ranking) if ranking.objects.any() else None for ranking in rank(objects, detections, num_classes)]


def rank(objects: dict[ImageId, _Objects], detections: list[ImageDetections], num_classes: int) -> list[Ranking]:
    """Match all detections with objects; a ranking per class, whose images are those of `objects`.

    Which object a detection overlaps most does not depend on the other detections, so all of an image
    are compared at once; the order of the scores only decides which of several keeps the object.
    """
    offsets = np.cumsum([0, *(len(o.classes) for o in objects.values())])  # object ids over the data set
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


def average_precision(recall: np.ndarray, precision: np.ndarray, eleven_points: bool) -> float:
    """Average precision, in 0..1, of a class at one IoU threshold.

    With p(r) the best precision at a recall of r or more: the mean of p(0), p(0.1), …, p(1), or the
    area under p.

    Args:
        recall: (N,) non-decreasing, after each detection.
        precision: (N,) after each detection.
    """
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_points:
        at = np.searchsorted(recall, RECALL_POINTS, side="left")
        return float(np.append(best, 0.0)[at].sum() / 11)
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def voc_corners(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N, 4) boxes as VOC writes them: 1-based inclusive corners with one decimal; float64.

    The shift is made in float32; ten float32 values have an exact float64, so `np.round` gives the very
    number that `f"{value:.1f}"` shows.
    """
    shifted = boxes_xyxy.astype(np.float32) + np.array([1, 1, 0, 0], dtype=np.float32)
    return np.round(shifted.astype(np.float64), 1)


def voc_scores(scores: np.ndarray) -> np.ndarray:
    """(N,) float32 scores with three decimals; float64."""
    return np.round(scores.astype(np.float64), 3)


def _read_objects(record: dict) -> _Objects:
    found = record.get("annotations", ())
    boxes = np.array([BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in found])
    return _Objects(
        boxes.reshape(-1, 4) + np.array([1, 1, 0, 0]),  # the reader has made VOC's corners 0-based
        np.array([a["category_id"] for a in found], dtype=np.int64),
        np.array([bool(a.get("difficult") or a.get("iscrowd")) for a in found], dtype=bool),
    )


def _best_overlap(boxes: np.ndarray, classes: np.ndarray, truth: _Objects) -> tuple[np.ndarray, np.ndarray]:
    """For each of N detections the largest IoU with an object of its class (-1: none), and which it is."""
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
    """Which detections of a class, in the order of their scores, are right and which do not count; (T, N) bool.

    Args:
        overlaps: (N,) IoU with the object that each detection takes.
        taken: (N,) id of that object.
        difficult: (all objects,) bool.
    """
    hit = overlaps > _IOU_THRESHOLDS[:, None]  # (T, N)
    free = hit & difficult[taken] if len(difficult) else np.zeros_like(hit)
    right = np.zeros_like(hit)
    for t, hits in enumerate(hit & ~free):
        order = np.flatnonzero(hits)
        right[t, order[np.unique(taken[order], return_index=True)[1]]] = True
    return right, free


def _follow(ranking: Ranking) -> Curve:
    true = np.cumsum(ranking.right, axis=1)
    false = np.cumsum(~ranking.right & ranking.counted, axis=1)
    # Before the first detection that counts there is neither: precision 0.
    precision = true / np.maximum(true + false, np.finfo(np.float64).eps)
    return Curve(true / ranking.objects.sum(), precision)
