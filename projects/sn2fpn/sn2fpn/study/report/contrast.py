"""The test images on which two variants differ most, with hits, false positives and missed objects in colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data import read_image
from ...evaluation.detections import ImageDetections
from ...evaluation.error_split import Judgement
from ...structures import box_of
from ...visualization import draw_boxes, fit_image
from ..measure.results import CellResult, StudyResults
from .content import number
from .samples import SampleRow, TestSet

__all__ = ["best_threshold", "draw_contrast", "image_f1"]

HIT, FALSE_POSITIVE, MISSED = (0, 158, 115), (230, 159, 0), (213, 40, 40)
_SIZE_PX = 320
_EACH = 2  # pictures in favour of either variant


def draw_contrast(results: StudyResults, test_set: TestSet, variant: str, against: str) -> list[SampleRow]:
    """Draw the images on which the F1 score of a variant is most above and most below that of another one.

    A detection counts if its score reaches the threshold at which the variant's F1 score on all images is best. The F1
    score of an image is the mean over the seeds. The pictures show the detections of each variant's first seed.
    """
    sides = [_side(name, results.of(name), test_set) for name in (variant, against)]
    difference = sides[0].f1 - sides[1].f1
    order = np.argsort(-difference, kind="stable")
    chosen = [i for i in order[:_EACH] if difference[i] > 0] + [i for i in order[-_EACH:] if difference[i] < 0]
    rows = []
    for i in chosen:
        record = test_set.records[i]
        small, scale = fit_image(read_image(record["file_name"], "RGB"), _SIZE_PX)
        pictures = [_picture(small, scale, record, side, i) for side in sides]
        captions = [f"{side.name}: F1 {number(100 * side.f1[i], 0)} %" for side in sides]
        rows.append(SampleRow(Path(record["file_name"]).name, captions, pictures))
    return rows


@dataclass(frozen=True)
class _Side:
    """One of two variants: its threshold, the F1 score of each image, and what its first seed has detected."""

    name: str
    threshold: float
    f1: np.ndarray
    detections: list[ImageDetections]
    judged: list[Judgement]


def _side(name: str, cells: Sequence[CellResult], test_set: TestSet) -> _Side:
    judged = [test_set.judged(cell) for cell in cells]
    threshold = best_threshold([j for of_seed in judged for j in of_seed])
    f1 = np.mean([[image_f1(j, threshold) for j in of_seed] for of_seed in judged], axis=0)
    return _Side(name, threshold, f1, test_set.predictions(cells[0]), judged[0])


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
    return float(scores[order][f1.argmax()])


def image_f1(j: Judgement, threshold: float) -> float:
    """Return the F1 score of one image, from 0 to 1; 1 if there is nothing to find and nothing was found."""
    shown = j.scores >= threshold
    hits, wrong = int((j.is_right & shown).sum()), int((j.is_wrong & shown).sum())
    total = hits + wrong + len(j.object_classes)
    return 2 * hits / total if total else 1.0


def _picture(image: np.ndarray, scale: float, record: dict[str, Any], side: _Side, i: int) -> np.ndarray:
    """Draw hits green, false positives orange, and objects that no shown detection has found red."""
    j, detected = side.judged[i], side.detections[i].boxes
    shown = np.flatnonzero((j.scores >= side.threshold) & (j.is_right | j.is_wrong))
    boxes = [detected[k] * scale for k in j.order[shown]]
    colors = [HIT if right else FALSE_POSITIVE for right in j.is_right[shown]]
    objects = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
    for k in set(range(len(objects))) - set(j.target[shown][j.is_right[shown]].tolist()):
        boxes.append(box_of(objects[k]) * scale)
        colors.append(MISSED)
    return draw_boxes(image, boxes, colors=colors)
