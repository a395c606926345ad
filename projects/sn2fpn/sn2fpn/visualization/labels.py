"""Labels on images: their font, their text, and places for them that hide little."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ImageDraw, ImageFont

__all__ = ["MAX_LABELS", "LabelPlacer", "draw_label", "draw_note", "font", "printable"]

Color = tuple[int, int, int]

MAX_LABELS = 300
"""An image with more labels than this gets none. They would cover the image, and placing them takes quadratic time."""
_MAX_LETTERS = 80
_SMALLEST_PX = 7


@lru_cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans Bold, which Matplotlib contains and which has the letters of most languages."""
    import matplotlib  # every start of a training would wait for it

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    return ImageFont.truetype(str(path), size_px)


def printable(text: str) -> str:
    """Return a text in one line, without characters that cannot be drawn, and cut off after 80 letters."""
    text = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 1] + "…"


class LabelPlacer:
    """Chooses the place of each label: at a corner of its box, inside the image, over few labels and small boxes.

    Args:
        size: (width, height) of the image.
        size_px: height of the letters.
        boxes: (N, 4) `(x1, y1, x2, y2)`, all boxes of the image.
    """

    def __init__(self, size: tuple[int, int], size_px: int, boxes: np.ndarray) -> None:
        self.size, self.size_px = size, size_px
        self._boxes = boxes
        self._box_areas = np.maximum(_areas(boxes), 1.0)
        self._placed: list[np.ndarray] = []

    def place(self, width: float, height: float, box: np.ndarray) -> tuple[float, float, float, float]:
        """Return the rectangle of a label of (width, height) for `box` (4,). It counts as taken from now on."""
        x1, y1, x2, y2 = box
        corners = np.array(
            [
                (x1, y1 - height),
                (x1, y1),
                (x1, y2),
                (x2 - width, y1 - height),
                (x2 - width, y2),
                (x1, y2 - height),
                (x2 - width, y1),
                (x2, y1),
                (x1 - width, y1),
            ]
        )
        limits = np.maximum([self.size[0] - 1 - width, self.size[1] - 1 - height], 0.0)
        starts = np.minimum(np.maximum(corners, 0.0), limits)
        spots = np.concatenate([starts, starts + np.array([width, height])], axis=1)
        # A label far from its corner may seem to belong to another box.
        cost = np.abs(starts - corners).sum(axis=1) * self.size_px / 4 + np.arange(len(spots)) * 0.04 * width * height
        if self._placed:
            cost += 3 * _shared(spots, np.stack(self._placed)).sum(axis=1)
        # Large boxes weigh less, because their edges remain visible under a label.
        weights = np.minimum(width * height / self._box_areas, 1.0)
        cost += (_shared(spots, self._boxes) * weights).sum(axis=1)
        self._placed.append(spots[cost.argmin()])
        return tuple(self._placed[-1].tolist())


def draw_label(canvas: ImageDraw.ImageDraw, placer: LabelPlacer, box: np.ndarray, text: str, color: Color) -> None:
    """Draw the label of a box (4,) on a background of the box's colour, where `placer` wants it."""
    size_px = placer.size_px
    pad = max(1, round(size_px / 6))
    width = canvas.textlength(text, font=font(size_px)) + 2 * pad
    spot = placer.place(width, sum(font(size_px).getmetrics()) + 2 * pad, box)
    canvas.rectangle(spot, fill=color)
    canvas.text((spot[0] + pad, spot[1] + pad), text, fill=_readable_on(color), font=font(size_px), anchor="la")


def draw_note(canvas: ImageDraw.ImageDraw, text: str, size: tuple[int, int], size_px: int) -> None:
    """Write a line in white on black at the bottom of an image of `size` (width, height); it shrinks until it fits."""
    pad = 3
    while size_px > _SMALLEST_PX and canvas.textlength(text, font=font(size_px)) + 2 * pad > size[0]:
        size_px -= 1
    top = max(size[1] - sum(font(size_px).getmetrics()) - 2 * pad, 0)
    canvas.rectangle((0, top, canvas.textlength(text, font=font(size_px)) + 2 * pad, size[1]), fill="black")
    canvas.text((pad, top + pad), text, fill="white", font=font(size_px), anchor="la")


def _readable_on(color: Sequence[int]) -> Color:
    """Return black for light colours and white for dark ones, by the luma of ITU-R BT.601."""
    return (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 else (255, 255, 255)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (N, M) areas of the intersections of (N, 4) and (M, 4) rectangles."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return sides.clip(min=0.0).prod(axis=2)
