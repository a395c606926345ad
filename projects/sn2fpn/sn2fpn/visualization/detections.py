"""Detections above a score on an image, or the best few, clearly marked, where none reaches the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..structures import Instances
from .instances import draw_instances, font_size, scale_instances
from .labels import draw_note

__all__ = ["BEST", "Shown", "draw_shown", "shown_detections"]

BEST = 5
"""How many detections are shown where none reaches the threshold."""
_GRAY = (170, 170, 170)


class Shown(NamedTuple):
    """The detections to draw.

    Attributes:
        instances: those that reach the threshold, or else the best few.
        reach: number of detections that reach the threshold.
        note: what to tell the reader if none does, such as "0 of 287 reach 0.5; best 5 in gray".
    """

    instances: Instances
    reach: int
    note: str

    def scaled(self, size: tuple[int, int]) -> Shown:
        """Scale the detections to another (height, width) of their image."""
        return self._replace(instances=scale_instances(self.instances, size))


def shown_detections(instances: Instances, score_threshold: float) -> Shown:
    """Choose the detections to draw from all of an image.

    Args:
        instances: `pred_boxes`, `scores`, `pred_classes` and perhaps `pred_masks`.
        score_threshold: the score that detections should reach.
    """
    keep = instances.scores >= score_threshold
    reach, found = int(keep.sum()), len(instances)
    if reach or not found:
        return Shown(instances[keep], reach, "")
    best = torch.argsort(instances.scores.nan_to_num(-1), descending=True, stable=True)[:BEST]
    return Shown(instances[best], 0, f"0 of {found} reach {score_threshold:g}; best {len(best)} in gray")


def draw_shown(
    image: np.ndarray, shown: Shown, class_names: Sequence[str], font_size_px: int | None = None
) -> np.ndarray:
    """Draw chosen detections. If none reaches the threshold, they are gray, and the note stands on the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        shown: what `shown_detections` chose, in pixels of `image`.
        class_names: the class names by contiguous id.
        font_size_px: the height of the letters; None makes them grow with the image, from 10 pixels on.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if not shown.note:
        return draw_instances(image, shown.instances, class_names, font_size_px=font_size_px)
    drawn = draw_instances(image, shown.instances, class_names, font_size_px=font_size_px, color=_GRAY)
    picture = Image.fromarray(drawn)
    draw_note(ImageDraw.Draw(picture), shown.note, picture.size, font_size_px or font_size(image))
    return np.asarray(picture)
