"""Grids of images with titles, and predictions beside the ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..atomic import atomic_write
from ..structures import Instances
from .detections import draw_shown, shown_detections
from .instances import draw_instances, fit_image, scale_instances
from .labels import MAX_LABELS, font

__all__ = ["Sample", "image_grid", "predictions_beside_ground_truth", "save_png"]

_GAP_PX = 12
_CAPTION_PX = 15
_NARROW_PX = 320  # columns are at least so wide where their titles need it


class Sample(NamedTuple):
    """An image with its ground truth and the predictions of a model."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    truth: Instances  # gt_boxes, gt_classes and perhaps gt_masks, in pixels of `image`
    prediction: Instances  # pred_boxes, pred_classes, scores and perhaps pred_masks, in pixels of `image`
    title: str = ""


def image_grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """Arrange images in rows and columns on a white background, with a title above each image.

    Rows are as high as their largest image. Columns are as wide as their largest image, or up to 320 pixels if their
    titles need that. The middle of longer titles is cut out.

    Args:
        rows: (H, W, 3) uint8 RGB images; rows may differ in length.
        titles: one title per image.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there is no image.
    """
    if not any(len(row) for row in rows):
        raise ValueError("a grid needs at least one image")
    columns = max(len(row) for row in rows)
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    for c in range(columns) if titles is not None else ():
        needed = max(math.ceil(font(_CAPTION_PX).getlength(row[c])) for row in titles if c < len(row))
        widths[c] = max(widths[c], min(needed, _NARROW_PX))
    heights = [max((image.shape[0] for image in row), default=0) for row in rows]
    caption = 0 if titles is None else sum(font(_CAPTION_PX).getmetrics()) + 4
    sheet = Image.new(
        "RGB",
        (sum(widths) + _GAP_PX * (columns + 1), sum(heights) + len(rows) * (caption + _GAP_PX) + _GAP_PX),
        "white",
    )
    canvas = ImageDraw.Draw(sheet)
    top = _GAP_PX
    for r, row in enumerate(rows):
        left = _GAP_PX
        for c, image in enumerate(row):
            if titles is not None:
                text = _shorten(canvas, titles[r][c], widths[c])
                canvas.text((left, top), text, fill=(40, 40, 40), font=font(_CAPTION_PX), anchor="la")
            sheet.paste(Image.fromarray(image), (left, top + caption))
            left += widths[c] + _GAP_PX
        top += caption + heights[r] + _GAP_PX
    return np.asarray(sheet)


def predictions_beside_ground_truth(
    samples: Sequence[Sample],
    path: str | Path,
    class_names: Sequence[str],
    score_threshold: float = 0.5,
    size_px: int = 480,
    pairs_per_row: int = 2,
) -> Path:
    """Write a PNG file that shows the ground truth of each sample and, to the right of it, the predictions.

    Args:
        samples: at least one sample.
        path: the file to write or replace.
        class_names: the class names by contiguous id.
        score_threshold: predictions with lower scores are not drawn, except the best few, in gray and with a note,
            where no prediction reaches it.
        size_px: the longer edge of every image in the picture, so that labels are equally readable.
        pairs_per_row: number of samples per row.

    Returns:
        `path`.
    """
    cells: list[np.ndarray] = []
    titles: list[str] = []
    for sample in samples:
        image, _ = fit_image(sample.image, size_px)
        truth = scale_instances(sample.truth, image.shape[:2])
        shown = shown_detections(sample.prediction, score_threshold).scaled(image.shape[:2])
        cells.append(draw_instances(image, truth, class_names, font_size_px=13))
        cells.append(draw_shown(image, shown, class_names, font_size_px=13))
        name = f"{sample.title}: " if sample.title else ""
        titles += [
            f"{name}ground truth, {_count(len(truth))}",
            f"prediction, {_count(shown.reach)} scoring {score_threshold:g} or more"
            if len(sample.prediction)
            else "prediction, nothing detected",
        ]
    width = 2 * pairs_per_row
    rows = [slice(i, i + width) for i in range(0, len(cells), width)]
    return save_png(image_grid([cells[r] for r in rows], [titles[r] for r in rows]), path)


def save_png(image: np.ndarray, path: str | Path) -> Path:
    """Write an (H, W, 3) uint8 RGB image as a PNG file, completely or not at all."""
    with atomic_write(path, "wb") as file:
        Image.fromarray(image).save(file, format="PNG")
    return Path(path)


def _count(boxes: int) -> str:
    return f"{boxes} box" if boxes == 1 else f"{boxes} boxes" + " without labels" * (boxes > MAX_LABELS)


def _shorten(canvas: ImageDraw.ImageDraw, text: str, width_px: int) -> str:
    """Cut out the middle of a text so that it fits."""
    if canvas.textlength(text, font=font(_CAPTION_PX)) <= width_px:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
        if canvas.textlength(short, font=font(_CAPTION_PX)) <= width_px:
            return short
    return "…"
