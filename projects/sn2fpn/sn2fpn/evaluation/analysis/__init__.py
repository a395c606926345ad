"""What a detector does right and wrong on a data set.

A training and an evaluation write three files beside their predictions: `analysis.json`, the charts `analysis.png`, and
`best_and_worst.png` with the pictures on which the detector does best and worst. The program
`python -m sn2fpn.evaluation.analysis` writes them for any predictions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic import atomic_write
from ...data import read_image
from ...errors import UserError
from ...visualization import image_grid, plot_analysis, save_png
from ..detections import DetectionEvaluator, ImageDetections
from ..error_split import ErrorSplit, Judgement, judge_image, split_errors
from ..hits import Hits, best_threshold, confusion_matrix, count_hits, draw_hits
from ..tables import without_nan

__all__ = ["EXTREMES", "PREDICTIONS", "Analysis", "analyse", "write_analysis"]

logger = logging.getLogger(__name__)

PREDICTIONS = "coco_instances_results.json"
"""The file of detections that an evaluation writes."""
EXTREMES = "best_and_worst.png"
"""The picture of the images on which a detector does best and worst."""
_PICTURES, _SIZE_PX = 4, 360


@dataclass(frozen=True)
class Analysis:
    """What a detector does right and wrong.

    Attributes:
        class_names: the class names by contiguous id.
        threshold: the score at which the F1 score over all images is best; hits and confusions count from there on. It
            is 0 without detections.
        errors: the kinds of errors, and the precision at each recall.
        confusion: see `confusion_matrix`.
        hits: for each image, what it holds right and wrong.
        judged: for each image, what its detections are.
    """

    class_names: list[str]
    threshold: float
    errors: ErrorSplit
    confusion: np.ndarray
    hits: list[Hits]
    judged: list[Judgement]

    @property
    def detections(self) -> int:
        """The number of all detections."""
        return sum(len(j.scores) for j in self.judged)

    def summary(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the analysis in plain values, with the images from worst to best."""
        order = sorted(range(len(self.hits)), key=self._rank)
        images = [
            {"file_name": records[i]["file_name"], "f1": self.hits[i].f1, **self.hits[i]._asdict()} for i in order
        ]
        names = [*self.class_names, "background"]
        return {
            "detections": self.detections,
            "objects": sum(len(j.object_classes) for j in self.judged),
            "threshold": self.threshold,
            "AP50": self.errors.ap50,
            "lost_AP50": self.errors.lost,
            "errors": self.errors.count,
            "precision_at_recall": self.errors.precision.tolist(),
            "confusion": {"rows": "object", "columns": "detection", "names": names, "matrix": self.confusion.tolist()},
            "images": images,
        }

    def extremes(self, number: int) -> tuple[list[int], list[int]]:
        """Return the positions of the images with the worst and with the best results, without images in both."""
        order = sorted(range(len(self.hits)), key=self._rank)
        best = [i for i in reversed(order) if self.hits[i].right][:number]
        return [i for i in order if self.hits[i].wrong + self.hits[i].missed and i not in best][:number], best

    def _rank(self, i: int) -> tuple[float, int]:
        """Rank an image by its F1 score, and then by the number of its mistakes or of its hits."""
        hits = self.hits[i]
        return hits.f1, hits.right if hits.f1 == 1 else -hits.wrong - hits.missed


def analyse(evaluator: DetectionEvaluator, found: Sequence[ImageDetections]) -> Analysis:
    """Analyse the detections in all images of a data set.

    Args:
        evaluator: the evaluator of the data set, whose metric tells which objects count.
        found: the detections of each image, in the order of the data set.
    """
    records, names = evaluator.records, evaluator.class_names
    judged = [judge_image(record, of_image, evaluator.counts) for record, of_image in zip(records, found, strict=True)]
    threshold = best_threshold(judged)
    confusion = confusion_matrix(records, found, judged, len(names), threshold)
    hits = [count_hits(j, threshold) for j in judged]
    return Analysis(list(names), threshold, split_errors(judged, len(names)), confusion, hits, judged)


def write_analysis(evaluator: DetectionEvaluator, predictions: Path, folder: Path) -> Path | None:
    """Analyse stored predictions, and write `analysis.json`, `analysis.png` and `best_and_worst.png`.

    Args:
        evaluator: the evaluator of the data set.
        predictions: the file `coco_instances_results.json` that it has written.
        folder: the folder to write to.

    Returns:
        The charts, or None if the data set has no annotations.

    Raises:
        UserError: the predictions cannot be read, or belong to another data set.
    """
    records = evaluator.records
    if not all("annotations" in record for record in records):
        return None
    found = evaluator.read_detections(predictions)
    analysis = analyse(evaluator, found)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "analysis.json") as file:
        json.dump(without_nan(analysis.summary(records)), file, indent=1)
    charts = plot_analysis(
        analysis.errors.precision,
        analysis.errors.lost,
        analysis.confusion,
        [*analysis.class_names, "background"],
        analysis.threshold if analysis.detections else None,
        folder / "analysis.png",
    )
    _draw_extremes(analysis, records, found, folder / EXTREMES)
    return charts


def _draw_extremes(
    analysis: Analysis, records: Sequence[dict[str, Any]], found: Sequence[ImageDetections], path: Path
) -> None:
    """Draw the worst images above the best ones, with hits, false positives and missed objects in colour."""
    rows, titles = [], []
    for word, chosen in zip(("worst", "best"), analysis.extremes(_PICTURES)):
        pictures, captions = [], []
        for i in chosen:
            try:
                image = read_image(records[i]["file_name"], "RGB")
            except UserError as e:
                logger.warning("no picture of image %s: %s", records[i]["image_id"], e)
                continue
            pictures.append(draw_hits(image, _SIZE_PX, records[i], found[i], analysis.judged[i], analysis.threshold))
            hits = analysis.hits[i]
            captions.append(f"{word}: {hits.right} right, {hits.wrong} wrong, {hits.missed} missed")
        if pictures:
            rows.append(pictures)
            titles.append(captions)
    if rows:
        save_png(image_grid(rows, titles), path)
    else:
        path.unlink(missing_ok=True)  # of other predictions
