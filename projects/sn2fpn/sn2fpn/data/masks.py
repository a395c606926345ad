"""Segmentations from annotation files: checks before they are decoded, and transforms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from ..structures import polygons_to_bitmask
from .clipping import clip_polygon
from .transforms import TransformList

__all__ = [
    "BORDER_TOLERANCE_PX",
    "MASK_FORMATS",
    "OutsideImage",
    "as_lists",
    "check_and_clip",
    "check_segmentation",
    "draw_segmentation",
    "has_mask",
    "move_polygons",
]

MASK_FORMATS = ("polygon", "bitmask")

# Annotations often cross the border by a rounding error. Only what is further outside is clipped.
BORDER_TOLERANCE_PX = 1.0
_FAR = 1e9
_NUMBERS = {int, float}
_NO_POLYGON = "segmentation has a polygon that is not a list of finite numbers; expected [[x0, y0, x1, y1, …], …]"
MAX_PIXELS = 2**31 - 1  # pycocotools counts the pixels of a mask in 32 bits


class OutsideImage(ValueError):
    """No part of a segmentation lies in its image."""


def check_segmentation(segmentation: Any, height: int, width: int) -> Any:
    """Return a segmentation in a form that is ready for use; see `check_and_clip` for the arguments and errors."""
    return check_and_clip(segmentation, height, width)[0]


def check_and_clip(segmentation: Any, height: int, width: int) -> tuple[Any, bool]:
    """Check a segmentation, and clip polygons that reach further beyond the image than by a rounding error.

    Args:
        segmentation: a list of polygons `[x0, y0, x1, y1, …]` or of arrays, a single polygon, or COCO's RLE dict,
            compressed or not.
        height: height of the image.
        width: width of the image; run lengths must fill the image exactly.

    Returns:
        The polygons that have at least three points, or the compressed RLE; and whether a polygon was clipped.

    Raises:
        OutsideImage: no part of the segmentation lies in the image.
        ValueError: the segmentation is malformed.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels cannot have masks")
    if isinstance(segmentation, dict):
        return _check_rle(as_lists(segmentation), height, width), False
    segmentation = as_lists(segmentation)
    if segmentation and all(_is_usual(polygon, height, width) for polygon in segmentation):
        return segmentation, False
    if segmentation and all(isinstance(v, (int, float)) for v in segmentation):
        segmentation = [segmentation]  # a single polygon that is not in a list
    arrays = [_as_array(polygon) for polygon in segmentation]
    kept = [(p, a) for p, a in zip(segmentation, arrays) if len(a) % 2 == 0 and len(a) >= 6]
    if not kept:
        lengths = [len(a) for a in arrays]
        raise ValueError(f"segmentation has no polygon with at least 3 points (numbers: {lengths})")
    clipped = [_clip(a, height, width) for _, a in kept]
    inside = [part for (p, _), parts in zip(kept, clipped) for part in ([p] if parts is None else parts)]
    if not inside:
        raise OutsideImage(f"segmentation lies outside the {width}x{height} image")
    return inside, any(parts is not None for parts in clipped)


def has_mask(annotation: Mapping[str, Any]) -> bool:
    """Return whether an object has a segmentation, which need not be valid."""
    segmentation = annotation.get("segmentation")
    return isinstance(segmentation, np.ndarray) or bool(segmentation)  # the truth value of an array is not defined


def as_lists(segmentation: Any) -> Any:
    """Return a segmentation whose arrays and tuples are lists. Polygons may be arrays of points, as OpenCV's contours.

    Raises:
        ValueError: the segmentation is neither a list nor an RLE dict.
    """
    if isinstance(segmentation, dict):
        changed = {key: np.asarray(value).tolist() for key, value in segmentation.items() if _is_array(value)}
        return {**segmentation, **changed} if changed else segmentation
    if isinstance(segmentation, np.ndarray):
        found = f"segmentation is an array of the shape {segmentation.shape}"
        raise ValueError(f"{found}, expected polygons or RLE; pycocotools.mask.encode makes RLE of a bitmap")
    if not isinstance(segmentation, (list, tuple)):
        raise ValueError(f"segmentation is {type(segmentation).__name__}, expected polygons or RLE")
    if type(segmentation) is list and not any(map(_is_array, segmentation)):
        return segmentation
    return [_flat(part) if _is_array(part) else part for part in segmentation]


def _is_array(value: Any) -> bool:
    return isinstance(value, (tuple, np.ndarray))


def _flat(part: tuple | np.ndarray) -> list[Any]:
    """Return points (…, 2) as one list of their numbers, and any other array with its own form."""
    try:
        points = np.asarray(part)
    except ValueError:  # tuples of different lengths
        raise ValueError(_NO_POLYGON) from None
    return (points.reshape(-1) if points.shape[-1:] == (2,) else points).tolist()


def _is_usual(polygon: Any, height: int, width: int) -> bool:
    """Return whether a polygon is a list of three or more points in its image, as nearly all are.

    This is what `check_and_clip` checks with arrays, which takes several times as long for lists of this length.
    """
    if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2 or not {*map(type, polygon)} <= _NUMBERS:
        return False
    try:
        finite = math.isfinite(sum(polygon))  # where a number is NaN, the order of the others is not defined
    except OverflowError:
        return False
    t = BORDER_TOLERANCE_PX
    inside = max(polygon[::2]) <= width + t and max(polygon[1::2]) <= height + t
    return finite and inside and min(polygon) >= -t


def _as_array(polygon: Any) -> np.ndarray:
    numbers = np.array(polygon if isinstance(polygon, list) else "")  # ragged lists raise ValueError by themselves
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise ValueError(_NO_POLYGON)
    return numbers


def _clip(polygon: np.ndarray, height: int, width: int) -> list[list[float]] | None:
    """Return the parts of a polygon, (2 K,), in its image, or None if it lies in it up to a rounding error."""
    points, t = polygon.reshape(-1, 2), BORDER_TOLERANCE_PX
    if polygon.min() >= -t and (points.max(0) <= (width + t, height + t)).all():
        return None
    points = points.astype(np.float64).clip(-_FAR, _FAR)  # the products of larger numbers overflow
    return [part.reshape(-1).tolist() for part in clip_polygon(points, (height, width))]


def move_polygons(
    segmentation: list[list[float]] | dict[str, Any] | None, transforms: TransformList
) -> list[np.ndarray]:
    """Transform polygons `[x0, y0, x1, y1, …]`. The result is empty for None.

    Raises:
        ValueError: the segmentation is RLE.
    """
    if isinstance(segmentation, dict):
        raise ValueError(
            "a mask is given as run lengths (RLE), which the mask format 'polygon' cannot represent; "
            "use the mask format 'bitmask'"
        )
    points = [np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in segmentation or ()]
    return [p.reshape(-1) for p in transforms.apply_polygons(points)]


def draw_segmentation(
    segmentation: list[list[float]] | dict[str, Any] | None, transforms: TransformList, image_size: tuple[int, int]
) -> np.ndarray:
    """Transform a segmentation and draw it as a mask.

    Polygons are transformed and then drawn. Run lengths are decoded and then transformed as an image.

    Args:
        segmentation: a segmentation that `check_segmentation` returned, or None.
        transforms: the transforms to apply.
        image_size: the (height, width) that the transforms produce.

    Returns:
        (height, width) bool, all False for None.
    """
    if isinstance(segmentation, dict):
        return transforms.apply_mask(mask_api.decode(segmentation)).astype(bool)
    return polygons_to_bitmask(move_polygons(segmentation, transforms), *image_size)


def _check_rle(rle: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    counts, size = rle.get("counts"), rle.get("size")
    if size != [height, width]:
        raise ValueError(f"RLE has size {size}, the image is {[height, width]} (height, width)")
    if isinstance(counts, list):
        runs = counts
        if not all(type(c) is int and c >= 0 for c in runs):
            raise ValueError("RLE counts must be integers >= 0")
    elif isinstance(counts, (str, bytes)):
        runs = _decode_counts(counts)
    else:
        raise ValueError(f"RLE counts are {type(counts).__name__}, expected a list or a string")
    if sum(runs) != height * width:
        raise ValueError(f"RLE run lengths add up to {sum(runs)}, not {height}x{width} = {height * width}")
    return mask_api.frPyObjects(rle, height, width) if isinstance(counts, list) else rle


def _decode_counts(text: str | bytes) -> list[int]:
    """Decode the run lengths of COCO's compressed string.

    Each character holds 5 bits, and the runs after the second are stored as differences to the run before the last.
    """
    if isinstance(text, str) and not text.isascii():
        raise ValueError("RLE counts string is malformed")
    data = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        part = byte - 48
        if not 0 <= part < 64 or shift > 30:
            raise ValueError("RLE counts string is malformed")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:  # the sign bit of the last group
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise ValueError("RLE counts string has a negative run")
        value = shift = 0
    if shift:
        raise ValueError("RLE counts string ends in the middle of a number")
    return runs
