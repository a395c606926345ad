"""What a detector finds in single images, when detections count from a score threshold on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..structures import box_of
from ..visualization import draw_boxes, fit_image
from .detections import ImageDetections
from .error_split import Judgement, box_overlaps

__all__ = ["Hits", "best_threshold", "confusion_matrix", "count_hits", "draw_hits"]

HIT, FALSE_POSITIVE, MISSED = (0, 158, 115), (230, 159, 0), (213, 40, 40)


class Hits(NamedTuple):
    """How many detections of an image are right and wrong, and how many objects are missed."""

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """The F1 score, from 0 to 1; 1 if there is nothing to find and nothing was found."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def count_hits(j: Judgement, threshold: float) -> Hits:
    """Count the detections of an image whose scores reach a threshold, and the objects that they leave."""
    shown = j.scores >= threshold
    right = int((j.is_right & shown).sum())
    return Hits(right, int((j.is_wrong & shown).sum()), len(j.object_classes) - right)


def best_threshold(judged: Sequence[Judgement]) -> float:
    """Return the score at which the F1 score over all images is highest; 0 without detections."""
    scores, right = (
        np.concatenate([getattr(j, key)[j.is_right | j.is_wrong] for j in judged]) for key in ("scores", "is_right")
    )
    objects = sum(len(j.object_classes) for j in judged)
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + objects)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # a threshold takes all with an equal score
    return float(scores[order][last[f1[last].argmax()]])


def confusion_matrix(
    records: Sequence[dict[str, Any]],
    found: Sequence[ImageDetections],
    judged: Sequence[Judgement],
    num_classes: int,
    threshold: float,
) -> np.ndarray:
    """Count which classes are taken for which.

    A detection that is right has found its object. By descending score, each of the others takes the free object of any
    class with the highest IoU of at least 0.5.

    Args:
        records: the images with their annotations.
        found: the detections of each image.
        judged: what these detections are, and which objects count.
        num_classes: the number of classes C.
        threshold: the score from which on detections count.

    Returns:
        (C + 1, C + 1) int64, by the class of the object and the class of the detection. The last row holds detections
        without an object, the last column objects without a detection.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for record, detections, j in zip(records, found, judged, strict=True):
        shown = j.scores >= threshold
        objects = [record["annotations"][i] for i in j.objects]
        free = np.ones(len(objects), bool)
        for label, target in zip(j.classes[shown & j.is_right], j.target[shown & j.is_right]):
            matrix[label, label] += 1
            free[target] = False
        wrong = j.order[shown & j.is_wrong]
        for row, label in zip(box_overlaps(detections.boxes[wrong], objects), detections.classes[wrong]):
            near = np.where(free, row, 0)
            taken = int(near.argmax()) if near.size and near.max() >= 0.5 else None
            matrix[num_classes if taken is None else objects[taken]["category_id"], label] += 1
            if taken is not None:
                free[taken] = False
        for left in np.flatnonzero(free):
            matrix[objects[left]["category_id"], num_classes] += 1
    return matrix


def draw_hits(
    image: np.ndarray, size_px: int, record: dict[str, Any], found: ImageDetections, j: Judgement, threshold: float
) -> np.ndarray:
    """Draw hits green, false positives orange, and objects that no drawn detection has found red.

    Args:
        image: the picture, (H, W, 3) uint8 RGB.
        size_px: the longer edge of the result.
        record: the picture's annotations.
        found: the detections in it.
        j: what they are, and which objects count.
        threshold: the score from which on detections are drawn.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    small, scale = fit_image(image, size_px)
    shown = np.flatnonzero((j.scores >= threshold) & (j.is_right | j.is_wrong))
    boxes = [found.boxes[k] * scale for k in j.order[shown]]
    colors = [HIT if right else FALSE_POSITIVE for right in j.is_right[shown]]
    for k in set(range(len(j.objects))) - set(j.target[shown][j.is_right[shown]].tolist()):
        boxes.append(box_of(record["annotations"][j.objects[k]]) * scale)
        colors.append(MISSED)
    return draw_boxes(small, boxes, colors=colors)
