"""What a user should know about the drawings of a run, said once at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..visualization import MAX_LABELS
from .names import shown

__all__ = ["Remarks"]

logger = logging.getLogger(__name__)

_NAMED = 5


class Remarks:
    """Collects the inputs whose drawings could be misunderstood.

    Args:
        score_threshold: the lowest score that is drawn.
        limit: largest number of detections per picture; a negative number means no limit.
    """

    def __init__(self, score_threshold: float, limit: int) -> None:
        self._score_threshold, self._limit = score_threshold, limit
        self._inputs = 0
        self._empty: list[str] = []
        self._unsure: list[str] = []
        self._full: list[str] = []
        self._crowded: list[str] = []

    def add(self, file: Any, reach: Sequence[int], found: int) -> None:
        """Take notice of an input.

        Args:
            file: the picture, video or stream.
            reach: for the picture or for each frame, how many detections reach the threshold.
            found: number of detections in all.
        """
        self._inputs += 1
        if not found:
            self._empty.append(shown(file))
        elif not any(reach):
            self._unsure.append(f"0 of {found} in {shown(file)}")
        if self._limit > 0 and self._limit in reach:
            self._full.append(shown(file))
        if max(reach, default=0) > MAX_LABELS:
            self._crowded.append(shown(file))

    def log(self) -> None:
        """Write at most one line on each kind."""
        if self._empty:
            self._log_empty()
        if self._unsure:
            logger.warning(
                "Nothing that is detected reaches --score-threshold %g in %d of %d inputs (%s); drawings of pictures "
                "show the best few in gray",
                self._score_threshold,
                len(self._unsure),
                self._inputs,
                _some(self._unsure),
            )
        if self._full:
            logger.warning(
                "As many detections as TEST.DETECTIONS_PER_IMAGE (max_detections of the RoI heads) allows (%d) are "
                "drawn in %d of %d inputs, which may hold more objects: %s",
                self._limit,
                len(self._full),
                self._inputs,
                _some(self._full),
            )
        if self._crowded:
            logger.warning(
                "%d of %d inputs have more than %d detections to draw, so their boxes have no labels: %s",
                len(self._crowded),
                self._inputs,
                MAX_LABELS,
                _some(self._crowded),
            )

    def _log_empty(self) -> None:
        """Say that inputs may hold no objects, or that the model may not know any."""
        if len(self._empty) < self._inputs:
            logger.info(
                "Nothing is detected in %d of %d inputs: %s", len(self._empty), self._inputs, _some(self._empty)
            )
            return
        logger.warning(
            "Nothing is detected in %s. The inputs may hold no objects of the model's classes, the model may have "
            "been trained for too short a time, or MODEL.ROI_HEADS.SCORE_THRESH_TEST (score_thresh of the RoI heads), "
            "below which detections are left out, may be too high",
            "the only input" if self._inputs == 1 else f"any of the {self._inputs} inputs",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
