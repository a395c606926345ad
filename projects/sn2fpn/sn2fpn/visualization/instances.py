"""Drawing of instances: boxes with readable labels, and masks, on images of any size.

Images are (H, W, 3) uint8 RGB arrays, and boxes are `(x1, y1, x2, y2)` in pixels of the image.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..structures import BitMasks, Boxes, Instances, PolygonMasks, RunLengthMasks
from ..structures.masks import polygons_to_bitmask
from .labels import MAX_LABELS, Color, LabelPlacer, draw_label, printable

__all__ = ["class_color", "draw_boxes", "draw_instances", "draw_masks", "fit_image", "font_size", "scale_instances"]

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
    small boxes. An image with more than `MAX_LABELS` (300) labels gets none of them, so that the time grows linearly
    with the number of boxes. Small boxes are drawn over large ones. Boxes that are not finite are left out.

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
    size = font_size_px or font_size(image)
    finite = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    with np.errstate(over="ignore"):
        area = (boxes[finite, 2:] - boxes[finite, :2]).prod(axis=1)
    order = finite[np.argsort(-area, kind="stable")]
    drawn = _inside(boxes[order], picture.size)
    for i, box in zip(order, drawn):
        canvas.rectangle(tuple(box.tolist()), outline=tuple(colors[i]), width=max(1, round(size / 7)))
    if np.count_nonzero([bool(labels[i]) for i in order]) <= MAX_LABELS:
        placer = LabelPlacer(picture.size, size, drawn)
        for i, box in zip(order[::-1], drawn[::-1]):  # labels of small boxes come first: they fit in fewer places
            if labels[i]:
                draw_label(canvas, placer, box, printable(labels[i]), tuple(colors[i]))
    return np.asarray(picture)


def font_size(image: np.ndarray) -> int:
    """Return the height of letters in pixels that suits an image (H, W, 3); it is at least 10."""
    return max(10, round(0.022 * (image.shape[0] * image.shape[1]) ** 0.5))


def draw_masks(
    image: np.ndarray,
    masks: Tensor | np.ndarray | RunLengthMasks,
    colors: Sequence[Color] | None = None,
    opacity: float = 0.4,
) -> np.ndarray:
    """Draw masks on a copy of an image, as tinted areas with outlines. Small masks are drawn over large ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool, or runs of N masks.
        colors: N RGB colours; None takes `class_color(i)` for mask i.
        opacity: opacity of the tint, from 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the masks do not have the size of the image, or the lengths differ.
    """
    in_runs = isinstance(masks, RunLengthMasks)
    masks = masks if in_runs else np.asarray(masks, dtype=bool)
    shape = (len(masks), *masks.image_size) if in_runs else masks.shape
    if shape[1:] != image.shape[:2]:
        raise ValueError(f"masks of shape {shape} do not fit an image of {image.shape[:2]} (height, width)")
    colors = [class_color(i) for i in range(len(masks))] if colors is None else colors
    if len(colors) != len(masks):
        raise ValueError(f"{len(masks)} masks with {len(colors)} colours")
    out = np.array(image, order="C")
    line = max(1, round(0.002 * (image.shape[0] * image.shape[1]) ** 0.5))
    areas = [masks.area(i) if in_runs else np.count_nonzero(masks[i]) for i in range(len(masks))]
    for i in np.argsort(-np.array(areas), kind="stable"):
        # Only the part of the image around the mask is touched, so that many small masks take little time.
        part, mask = masks.window(i) if in_runs else _window(masks[i])
        if not mask.size:
            continue
        pixels, color = out[part], np.array(colors[i], dtype=np.float32)
        pixels[mask] = np.rint(pixels[mask] * (1 - opacity) + color * opacity).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        corner = int(part[1].start), int(part[0].start)
        cv2.drawContours(out, contours, -1, tuple(map(int, colors[i])), line, offset=corner)
    return out


def _window(mask: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the rows and columns of the window around a mask [H, W], and the part of the mask inside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return part, mask[part]


def draw_instances(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    score_threshold: float = 0.0,
    font_size_px: int | None = None,
    color: Color | None = None,
) -> np.ndarray:
    """Draw predictions (`pred_boxes`, `pred_classes`, `scores`) or ground truth (`gt_boxes`, `gt_classes`).

    If there are masks (`pred_masks`, (N, H, W) bool, or `gt_masks`), they are drawn below the boxes.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: boxes and masks in pixels of `image`.
        class_names: the class names by contiguous id. Classes beyond are called "class 7" and so on.
        score_threshold: predictions with lower scores are left out.
        font_size_px: see `draw_boxes`.
        color: one RGB colour for all instances; None takes that of each instance's class.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    names = dict(enumerate(class_names))
    if instances.has("pred_boxes"):
        instances = instances[instances.scores >= score_threshold].to("cpu")
        boxes, classes = instances.pred_boxes.tensor, instances.pred_classes.tolist()
        labels = [f"{names.get(c, f'class {c}')} {s:.2f}" for c, s in zip(classes, instances.scores.tolist())]
    else:
        instances = instances.to("cpu")
        boxes, classes = instances.gt_boxes.tensor, instances.gt_classes.tolist()
        labels = [names.get(c, f"class {c}") for c in classes]
    colors = [color or class_color(c) for c in classes]
    for field in _MASK_FIELDS:
        if instances.has(field):
            masks = instances.get(field)
            if isinstance(masks, PolygonMasks):
                masks = BitMasks.from_polygon_masks(masks, *image.shape[:2])
            image = draw_masks(image, masks if isinstance(masks, RunLengthMasks) else _tensor(masks), colors)
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
            masks = torch.zeros(len(value), *size, dtype=torch.bool)
            if isinstance(value, PolygonMasks):  # Each is drawn when it is its turn, because they may be many.
                bitmaps = (polygons_to_bitmask(list(polygons), height, width) for polygons in value)
            else:
                bitmaps = iter(value if isinstance(value, RunLengthMasks) else _tensor(value))
            for out, mask in zip(masks.numpy(), bitmaps):
                out[:] = cv2.resize(255 * mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA) >= 128
            fields[name] = masks
    return Instances(size, **fields)


def _tensor(masks: Tensor | BitMasks) -> np.ndarray:
    return (masks.tensor if isinstance(masks, BitMasks) else masks).cpu().numpy()


def fit_image(image: np.ndarray, size_px: int) -> tuple[np.ndarray, float]:
    """Scale an image so that its longer edge is `size_px`, and return it with the factor."""
    height, width = image.shape[:2]
    factor = size_px / max(height, width)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)), factor


def _inside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sort the corners of (N, 4) boxes, and clip them to an image of (width, height)."""
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).clip(0, np.array(size) - 1)
    return corners.reshape(-1, 4)
