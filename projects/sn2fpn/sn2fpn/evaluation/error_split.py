"""What keeps a detector from a higher AP50: six kinds of errors, and the AP50 that each of them costs.

The kinds are those of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
sections 3.2 and 3.3). A false positive is of the first of them that holds, by its IoU with the objects of its image:

- "localisation": from 0.1 to 0.5 with an object of its class, and no more with any other one of its class,
- "classification": at least 0.5 with an object of another class,
- "duplicate": at least 0.5 with an object of its class that a detection with a higher score has found,
- "both": from 0.1 to 0.5 with an object of another class,
- "background": less than 0.1 with all objects.

An object is "missed" if no detection has found it and no classification or localisation error is about it.

Crowd regions do not count, and neither do difficult objects with Pascal VOC's metric: a detection that covers one of
its class, and has found no object that counts, is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import Params

from ..structures import BoxMode, box_of
from .detections import ImageDetections
from .resampling import mean_over_classes

__all__ = ["KINDS", "TOTALS", "ErrorSplit", "Judgement", "box_overlaps", "judge_image", "split_errors"]

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""The kinds of errors. All but the last one are kinds of false positives."""

TOTALS = ("false positives", "false negatives")
"""All false positives, whatever their kind, and all objects that no right detection has found."""

_IOU, _BACKGROUND_IOU = 0.5, 0.1
_RECALLS = Params().recThrs
_RIGHT, _IGNORED = -1, -2  # instead of a position in KINDS


@dataclass(frozen=True)
class ErrorSplit:
    """The errors of a detector on a data set.

    Attributes:
        ap50: the AP at an IoU of 0.5, in percent, as the mean over the classes that have objects.
        precision: (101,) the best precision, in percent, at a recall of at least 0, 0.01, …, 1, at an IoU of 0.5, as
            the mean over the classes that have objects. Its mean is `ap50`.
        lost: for each kind, how many points of AP50 would be gained if its errors were corrected and all others stayed.
            Missed objects are corrected by not counting them, as if the detector were as precise on them as on the
            others. This gains nothing where all detections of a class are wrong, and everything where a class has no
            detections, so that nothing else is wrong.
        count: the number of errors of each kind.
        lost_to: how many points of AP50 would be gained without each of `TOTALS`; false negatives are corrected like
            missed objects.
        found: the share of the objects, in percent, that a right detection has found, which is the largest recall.
    """

    ap50: float
    precision: np.ndarray
    lost: dict[str, float]
    count: dict[str, int]
    lost_to: dict[str, float]
    found: float


@dataclass(frozen=True)
class Judgement:
    """The detections of one image by descending score, and what they are.

    Attributes:
        order: (D,) int64, the positions of the detections in the image's list.
        scores: (D,) float64.
        classes: (D,) int64.
        kind: (D,) int64, a position in `KINDS`, -1 for a right detection, or -2 for one that does not count.
        target: (D,) int64, the object that a right detection has found or that a classification or localisation error
            is about; -1 for all others.
        objects: (G,) int64, the positions of the objects that count in the image's annotations.
        object_classes: (G,) int64, their classes.
        missed: (G,) bool.
    """

    order: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    objects: np.ndarray
    object_classes: np.ndarray
    missed: np.ndarray

    @property
    def is_wrong(self) -> np.ndarray:
        return self.kind >= 0

    @property
    def is_right(self) -> np.ndarray:
        return self.kind == _RIGHT


def split_errors(judged: Sequence[Judgement], num_classes: int) -> ErrorSplit:
    """Split the AP50 that a detector loses into kinds of errors.

    Args:
        judged: the images of a data set; see `judge_image`.
        num_classes: the number of classes.
    """
    now = _precision(judged, num_classes, "")
    lost = {kind: float(_precision(judged, num_classes, kind).mean() - now.mean()) for kind in KINDS}
    count = {kind: sum(int((j.kind == k).sum()) for j in judged) for k, kind in enumerate(KINDS)}
    count["missed"] = sum(int(j.missed.sum()) for j in judged)
    lost_to = {name: float(_precision(judged, num_classes, name).mean() - now.mean()) for name in TOTALS}
    objects, found = sum(len(j.object_classes) for j in judged), sum(int(j.is_right.sum()) for j in judged)
    return ErrorSplit(float(now.mean()), now, lost, count, lost_to, 100 * found / max(objects, 1))


def judge_image(
    record: dict[str, Any],
    found: ImageDetections,
    counts: Callable[[dict[str, Any]], bool] = lambda annotation: not annotation.get("iscrowd", 0),
) -> Judgement:
    """Tell what the detections of one image are.

    Args:
        record: the image with its annotations.
        found: its detections.
        counts: tells whether an annotation is an object that counts, such as `DetectionEvaluator.counts`.
    """
    annotations = record.get("annotations", ())
    positions = np.array([i for i, a in enumerate(annotations) if counts(a)], np.int64)
    objects, others = [annotations[i] for i in positions], [a for a in annotations if not counts(a)]
    order = np.argsort(-found.scores, kind="stable")
    classes, object_classes = found.classes[order], _classes(objects)
    iou = box_overlaps(found.boxes[order], objects)
    same = classes[:, None] == object_classes
    target = _match(np.where(same, iou, 0))
    on_others = box_overlaps(found.boxes[order], others) >= _IOU
    ignored = (on_others & (classes[:, None] == _classes(others))).any(axis=1) & (target < 0)
    right = target >= 0
    kind = np.where(right, _RIGHT, np.where(ignored, _IGNORED, _kinds(np.where(same, iou, 0), np.where(same, 0, iou))))
    classification, localisation = (kind == KINDS.index(name) for name in ("classification", "localisation"))
    if len(objects):
        target[classification] = np.where(same, 0, iou).argmax(axis=1)[classification]
        target[localisation] = np.where(same, iou, 0).argmax(axis=1)[localisation]
    missed = ~np.isin(np.arange(len(objects)), target)
    scores = found.scores[order].astype(np.float64)
    return Judgement(order, scores, classes, kind, target, positions, object_classes, missed)


def _classes(annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([a["category_id"] for a in annotations], np.int64)


def box_overlaps(boxes: np.ndarray, annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return the IoU of boxes, (D, 4) corners, with objects, (D, G); for a crowd the share of each box inside."""
    if not len(boxes) or not annotations:
        return np.zeros((len(boxes), len(annotations)))
    corners = np.asarray(boxes, np.float64)
    truth, crowd = zip(*((box_of(a, BoxMode.XYWH_ABS), int(bool(a.get("iscrowd", 0)))) for a in annotations))
    sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return np.asarray(coco_mask.iou(sizes, np.asarray(truth, np.float64), crowd))


def _match(iou: np.ndarray) -> np.ndarray:
    """Give each detection, in order, the free object with the highest IoU of at least 0.5; -1 if there is none."""
    target, free = np.full(len(iou), -1, np.int64), np.ones(iou.shape[1], bool)
    for i, row in enumerate(iou):
        candidates = np.where(free, row, 0)
        if candidates.size and candidates.max() >= _IOU:
            target[i] = candidates.argmax()
            free[target[i]] = False
    return target


def _kinds(same: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the kind that each detection has if it is wrong, by its IoU with objects of its class and of others."""
    best_same, best_other = (iou.max(axis=1, initial=0) for iou in (same, other))
    conditions = {
        "localisation": (best_same >= _BACKGROUND_IOU) & (best_same < _IOU),
        "classification": best_other >= _IOU,
        "duplicate": best_same >= _IOU,
        "background": np.maximum(best_same, best_other) < _BACKGROUND_IOU,
    }
    return np.select(list(conditions.values()), [KINDS.index(kind) for kind in conditions], KINDS.index("both"))


def _precision(judged: Sequence[Judgement], num_classes: int, fixed: str) -> np.ndarray:
    """Return the precision at each recall, (101,), if all errors of a kind were corrected; "" corrects nothing."""
    rows = [_corrected(j, fixed) for j in judged]
    scores, classes, right = (np.concatenate([row[i] for row in rows] or [np.zeros(0)]) for i in range(3))
    all_objects = np.concatenate([j.object_classes for j in judged] or [np.zeros(0, np.int64)])
    left_out = np.concatenate([_left_out(j, fixed) for j in judged] or [np.zeros(0, bool)])
    counted = all_objects[~left_out]
    objects = np.bincount(counted, minlength=num_classes)
    curves = np.full((num_classes, len(_RECALLS)), np.nan)
    for c in np.unique(all_objects):
        order = np.argsort(-scores[classes == c], kind="stable")
        perfect = fixed in ("missed", "false negatives") and not len(order) and not objects[c]
        curves[c] = 1.0 if perfect else _curve(right[classes == c][order], objects[c])
    return 100 * mean_over_classes(curves)


def _left_out(j: Judgement, fixed: str) -> np.ndarray:
    """Return (G,) whether objects are not counted after a correction."""
    if fixed == "false negatives":
        return ~np.isin(np.arange(len(j.object_classes)), j.target[j.is_right])
    return j.missed if fixed == "missed" else np.zeros(len(j.object_classes), bool)


def _curve(right: np.ndarray, objects: int) -> np.ndarray:
    """Return the best precision at a recall of at least each of `_RECALLS`; 0 where the recall is not reached.

    Args:
        right: (D,) bool, whether the detections of one class are right, by descending score.
        objects: the number of objects of the class.
    """
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / max(objects, 1), _RECALLS)
    return np.append(best_from_here, 0.0)[at]


def _corrected(j: Judgement, fixed: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, classes and whether they are right of the detections that count after a correction.

    A corrected classification or localisation error finds its object. Of several detections that have found an object,
    the one with the highest score stays. Other false positives are corrected by leaving them out.
    """
    classes, right, keep = j.classes.copy(), j.is_right, j.kind != _IGNORED
    if fixed in ("classification", "localisation"):
        right = right | (j.kind == KINDS.index(fixed))
        classes[right] = j.object_classes[j.target[right]]
        first = np.zeros(len(right), bool)
        positions = np.flatnonzero(right)  # by descending score
        first[positions[np.unique(j.target[positions], return_index=True)[1]]] = True
        keep &= ~right | first
    elif fixed == "false positives":
        keep &= right
    elif fixed in KINDS and fixed != "missed":
        keep &= j.kind != KINDS.index(fixed)
    return j.scores[keep], classes[keep], right[keep]
