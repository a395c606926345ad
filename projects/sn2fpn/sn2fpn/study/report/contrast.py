"""The test images on which two variants differ most, with hits, false positives and missed objects in colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data import read_image
from ...evaluation.detections import ImageDetections
from ...evaluation.error_split import Judgement
from ...evaluation.hits import best_threshold, count_hits, draw_hits
from ..measure.results import CellResult, StudyResults
from .content import number
from .samples import SampleRow, TestSet

__all__ = ["draw_contrast"]

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
        image = read_image(record["file_name"], "RGB")
        pictures = [
            draw_hits(image, _SIZE_PX, record, side.detections[i], side.judged[i], side.threshold) for side in sides
        ]
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
    f1 = np.mean([[count_hits(j, threshold).f1 for j in of_seed] for of_seed in judged], axis=0)
    return _Side(name, threshold, f1, test_set.predictions(cells[0]), judged[0])
