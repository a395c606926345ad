"""Drawing of instances: boxes with readable labels, and masks, on images of any size.

Images are (H, W, 3) uint8 RGB arrays, and boxes are `(x1, y1, x2, y2)` in pixels of the image.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..structures import BitMasks, Boxes, Instances, PolygonMasks

__all__ = ["class_color", "draw_boxes", "draw_instances", "draw_masks", "font", "fit_image", "scale_instances"]

Color = tuple[int, int, int]
_Rectangle = tuple[float, float, float, float]
_MASK_FIELDS = ("pred_masks", "gt_masks")


def class_color(index: int) -> Color:
    """Return the RGB colour of a class, whose hue differs clearly from those of the next few classes."""
    hue = (0.02 + index * 0.618034) % 1.0  # multiples of the golden ratio stay far apart
    saturation, value = ((0.85, 0.95), (0.60, 1.00), (0.95, 0.75))[index // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | Tensor | Sequence[Sequence[float]],
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    font_size_px: int | None = None,
) -> np.ndarray:
    """Draw boxes and labels on a copy of an image.

    Labels have a background of the box's colour. They are placed inside the image, where they hide few other labels and
    small boxes. Small boxes are drawn over large ones. Boxes with NaN are left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) `(x1, y1, x2, y2)`.
        labels: N texts; an empty text, or None instead of all texts, draws no label.
        colors: N RGB colours; None takes `class_color(i)` for box i.
        font_size_px: the height of the letters; None makes them grow with the image, from 10 pixels on.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: `image` is not (H, W, 3) uint8, or the lengths differ.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an (H, W, 3) uint8 image, found {image.shape} {image.dtype}")
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    labels = [""] * len(boxes) if labels is None else labels
    colors = [class_color(i) for i in range(len(boxes))] if colors is None else colors
    if not len(boxes) == len(labels) == len(colors):
        raise ValueError(f"{len(boxes)} boxes with {len(labels)} labels and {len(colors)} colours")

    picture = Image.fromarray(np.ascontiguousarray(image))
    canvas = ImageDraw.Draw(picture)
    size = font_size_px or max(10, round(0.022 * (picture.width * picture.height) ** 0.5))
    line = max(1, round(size / 7))
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    order = [i for i in np.argsort(-area, kind="stable") if np.isfinite(boxes[i]).all()]
    for i in order:
        canvas.rectangle(_inside(boxes[i], picture.size), outline=tuple(colors[i]), width=line)
    drawn = [_inside(boxes[i], picture.size) for i in order]
    placed: list[_Rectangle] = []
    for i in reversed(order):  # labels of small boxes come first, because they fit in fewer places
        if labels[i]:
            spot = _place(canvas, labels[i], _inside(boxes[i], picture.size), size, picture.size, placed, drawn)
            placed.append(spot)
            canvas.rectangle(spot, fill=tuple(colors[i]))
            pad = _padding(size)
            canvas.text(
                (spot[0] + pad, spot[1] + pad), labels[i], fill=_readable_on(colors[i]), font=font(size), anchor="la"
            )
    return np.asarray(picture)


def draw_masks(
    image: np.ndarray, masks: Tensor | np.ndarray, colors: Sequence[Color] | None = None, opacity: float = 0.4
) -> np.ndarray:
    """Draw masks on a copy of an image, as tinted areas with outlines. Small masks are drawn over large ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool.
        colors: N RGB colours; None takes `class_color(i)` for mask i.
        opacity: opacity of the tint, from 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the masks do not have the size of the image, or the lengths differ.
    """
    masks = np.asarray(masks, dtype=bool)
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(f"masks of shape {masks.shape} do not fit an image of {image.shape[:2]} (height, width)")
    colors = [class_color(i) for i in range(len(masks))] if colors is None else colors
    if len(colors) != len(masks):
        raise ValueError(f"{len(masks)} masks with {len(colors)} colours")
    out = np.array(image, order="C")
    line = max(1, round(0.002 * (image.shape[0] * image.shape[1]) ** 0.5))
    for i in np.argsort([-np.count_nonzero(m) for m in masks], kind="stable"):
        color = np.array(colors[i], dtype=np.float32)
        out[masks[i]] = np.rint(out[masks[i]] * (1 - opacity) + color * opacity).astype(np.uint8)
        contours, _ = cv2.findContours(masks[i].astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, tuple(map(int, colors[i])), line)
    return out


def draw_instances(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    score_threshold: float = 0.0,
    font_size_px: int | None = None,
) -> np.ndarray:
    """Draw predictions (`pred_boxes`, `pred_classes`, `scores`) or ground truth (`gt_boxes`, `gt_classes`).

    If there are masks (`pred_masks`, (N, H, W) bool, or `gt_masks`), they are drawn below the boxes.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: boxes and masks in pixels of `image`.
        class_names: the class names by contiguous id.
        score_threshold: predictions with lower scores are left out.
        font_size_px: see `draw_boxes`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if instances.has("pred_boxes"):
        instances = instances[instances.scores >= score_threshold].to("cpu")
        boxes, classes = instances.pred_boxes.tensor, instances.pred_classes.tolist()
        labels = [f"{class_names[c]} {s:.2f}" for c, s in zip(classes, instances.scores.tolist())]
    else:
        instances = instances.to("cpu")
        boxes, classes = instances.gt_boxes.tensor, instances.gt_classes.tolist()
        labels = [class_names[c] for c in classes]
    colors = [class_color(c) for c in classes]
    for field in _MASK_FIELDS:
        if instances.has(field):
            image = draw_masks(image, _bitmaps(instances.get(field), image.shape[:2]), colors)
    return draw_boxes(image, boxes.numpy(), labels, colors, font_size_px)


def scale_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """Scale boxes and masks to another (height, width) of their image. Masks are converted to bitmaps."""
    height, width = instances.image_size
    factors = torch.tensor([size[1] / width, size[0] / height] * 2)
    fields = dict(instances.get_fields())
    for name, value in fields.items():
        if isinstance(value, Boxes):
            fields[name] = Boxes(value.tensor.cpu() * factors)
        elif name in _MASK_FIELDS:
            masks = (255 * mask.astype(np.uint8) for mask in _bitmaps(value, instances.image_size))
            resized = [cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA) >= 128 for mask in masks]
            fields[name] = torch.from_numpy(np.stack(resized) if resized else np.zeros((0, *size), dtype=bool))
    return Instances(size, **fields)


def _bitmaps(masks: Tensor | BitMasks | PolygonMasks, size: tuple[int, int]) -> np.ndarray:
    """Convert the field `pred_masks` or `gt_masks` to (N, height, width) bool."""
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *size)
    return (masks.tensor if isinstance(masks, BitMasks) else masks).cpu().numpy()


def fit_image(image: np.ndarray, size_px: int) -> tuple[np.ndarray, float]:
    """Scale an image so that its longer edge is `size_px`, and return it with the factor."""
    height, width = image.shape[:2]
    factor = size_px / max(height, width)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)), factor


@lru_cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans Bold, which Matplotlib contains and which has the letters of most languages."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    return ImageFont.truetype(str(path), size_px)


def _padding(size_px: int) -> int:
    return max(1, round(size_px / 6))


def _readable_on(color: Color) -> Color:
    """Return black for light colours and white for dark ones, by the luma of ITU-R BT.601."""
    return (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 else (255, 255, 255)


def _inside(box: np.ndarray, size: tuple[int, int]) -> _Rectangle:
    """Sort the corners of a box, and clip them to an image of (width, height)."""
    x1, x2 = np.clip(sorted((box[0], box[2])), 0, size[0] - 1)
    y1, y2 = np.clip(sorted((box[1], box[3])), 0, size[1] - 1)
    return float(x1), float(y1), float(x2), float(y2)


def _place(
    canvas: ImageDraw.ImageDraw,
    label: str,
    box: _Rectangle,
    size_px: int,
    size: tuple[int, int],
    placed: Sequence[_Rectangle],
    boxes: Sequence[_Rectangle],
) -> _Rectangle:
    """Choose the place of a label: at a corner of its box, inside the image, and over few labels and small boxes."""
    pad = _padding(size_px)
    width = canvas.textlength(label, font=font(size_px)) + 2 * pad
    height = sum(font(size_px).getmetrics()) + 2 * pad
    x1, y1, x2, y2 = box
    corners = (
        (x1, y1 - height),
        (x1, y1),
        (x1, y2),
        (x2 - width, y1 - height),
        (x2 - width, y2),
        (x1, y2 - height),
        (x2 - width, y1),
        (x2, y1),
        (x1 - width, y1),
    )
    best: _Rectangle = (0.0, 0.0, width, height)
    least = float("inf")
    for rank, (x, y) in enumerate(corners):
        left = min(max(x, 0.0), max(size[0] - 1 - width, 0.0))
        top = min(max(y, 0.0), max(size[1] - 1 - height, 0.0))
        spot = (left, top, left + width, top + height)
        moved = abs(left - x) + abs(top - y)  # a label far from its corner may seem to belong to another box
        cost = 3 * sum(_shared(spot, other) for other in placed) + moved * size_px / 4 + rank * 0.04 * width * height
        cost += sum(_hidden(spot, other) for other in boxes)
        if cost < least:
            best, least = spot, cost
    return best


def _hidden(label: _Rectangle, box: _Rectangle) -> float:
    """Return the area of a box under a label, with less weight for large boxes, whose edges remain visible."""
    label_area = (label[2] - label[0]) * (label[3] - label[1])
    box_area = (box[2] - box[0]) * (box[3] - box[1])
    return _shared(label, box) * min(1.0, label_area / max(box_area, 1.0))


def _shared(a: _Rectangle, b: _Rectangle) -> float:
    """Return the area of the intersection of two rectangles."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
