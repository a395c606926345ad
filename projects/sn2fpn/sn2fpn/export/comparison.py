"""Compare the detections of an exported file with those of the model, and their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..modeling import GeneralizedRCNN

__all__ = ["Difference", "compare", "detections_of", "time_by_turns"]

BOX_TOLERANCE, SCORE_TOLERANCE, MASK_TOLERANCE = 1e-2, 1e-4, 1e-3
"""The differences up to which detections count as equal, in pixels and in probabilities."""


@dataclass(frozen=True)
class Difference:
    """The difference between two lists of detections.

    Attributes:
        found, expected: their lengths.
        classes: number of pairs with different classes.
        boxes, scores, masks: the largest absolute difference between paired coordinates in pixels, scores and mask
            probabilities; 0 without masks.
        with_masks: whether there are masks.
    """

    found: int
    expected: int
    classes: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    masks: float = 0.0
    with_masks: bool = False

    @property
    def compared(self) -> bool:
        """Whether there were detections to compare."""
        return bool(self.found or self.expected)

    @property
    def equal(self) -> bool:
        """Whether the detections are equal up to rounding."""
        return (
            self.found == self.expected
            and not self.classes
            and self.boxes <= BOX_TOLERANCE
            and self.scores <= SCORE_TOLERANCE
            and self.masks <= MASK_TOLERANCE
        )

    def __str__(self) -> str:
        if self.found != self.expected:
            return f"{self.found} detections, the model has {self.expected}"
        if not self.compared:
            return "no detections, neither by the file nor by the model, so nothing was compared"
        masks = f", {self.masks:.2g} in the probabilities of masks" if self.with_masks else ""
        pixels = f"{self.boxes:.2g}" if self.boxes < 99 else f"{self.boxes:.0f}"  # not "1.5e+02"
        return (
            f"{self.found} detections as the model; the largest differences are {pixels} pixels and "
            f"{self.scores:.2g} in scores{masks}; {self.classes} classes differ"
        )


def detections_of(detector: GeneralizedRCNN, image: Tensor) -> list[Tensor]:
    """Return the detections of a model in an image (Tensor[C, H, W]) in the form of an exported file's outputs."""
    (found,) = detector.inference([{"image": image}], do_postprocess=False)
    found = found[found.pred_boxes.nonempty()]
    masks = [found.pred_masks[:, 0]] if found.has("pred_masks") else []
    return [found.pred_boxes.tensor, found.scores, found.pred_classes, *masks]


def compare(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Difference:
    """Return the difference between two lists of detections, given as boxes, scores, classes and perhaps masks.

    Detections are paired so that the sum of the distances of the pairs is smallest, because detections of equal scores
    may come in any order.
    """
    with_masks = len(found) > 3
    if len(found[0]) != len(expected[0]) or not len(found[0]):
        return Difference(len(found[0]), len(expected[0]), with_masks=with_masks)
    classes = found[2][:, None] != expected[2]
    distance = (found[0][:, None] - expected[0]).abs().amax(-1) + (found[1][:, None] - expected[1]).abs()
    rows, columns = map(torch.from_numpy, linear_sum_assignment((distance + 1e6 * classes).detach().numpy()))
    gaps = [float((f[rows].float() - e[columns].float()).abs().max()) for f, e in zip(found, expected)]
    masks = gaps[3] if with_masks else 0.0
    return Difference(len(rows), len(columns), int(classes[rows, columns].sum()), gaps[0], gaps[1], masks, with_masks)


def time_by_turns(functions: Sequence[Callable[[], object]], rounds: int = 7) -> list[float]:
    """Return the median wall-clock time in seconds of each function; they run by turns, after one round unmeasured."""
    times: list[list[float]] = [[] for _ in functions]
    for measured in range(rounds + 1):
        for function, own in zip(functions, times):
            start = time.perf_counter()
            function()
            if measured:
                own.append(time.perf_counter() - start)
    return [median(own) for own in times]
