"""Checking segmentations as they come from files, before anything decodes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_api

__all__ = ["check_segmentation"]


def check_segmentation(segmentation: Any, height: int, width: int) -> Any:
    """A segmentation ready for use: polygons as lists, run lengths in compressed form.

    Args:
        segmentation: a list of polygons `[x0, y0, x1, y1, …]`, or COCO's RLE dict, compressed or not.
        height, width: size of the image, which run lengths must fill exactly.

    Returns:
        The polygons with at least three points, or the compressed RLE.

    Raises:
        ValueError: malformed; the message says how.
    """
    if isinstance(segmentation, dict):
        return _check_rle(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise ValueError(f"segmentation is {type(segmentation).__name__}, expected polygons or RLE")
    for polygon in segmentation:
        numbers = np.array(polygon if isinstance(polygon, list) else "")  # ragged lists raise ValueError by themselves
        if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
            raise ValueError("segmentation holds a polygon that is no list of finite numbers")
    kept = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
    if not kept:
        raise ValueError(f"segmentation has no polygon of 3 or more points (numbers: {[len(p) for p in segmentation]})")
    return kept


def _check_rle(rle: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    counts, size = rle.get("counts"), rle.get("size")
    if size != [height, width]:
        raise ValueError(f"RLE has size {size}, the image is {[height, width]} (height, width)")
    if isinstance(counts, list):
        runs = counts
        if not all(isinstance(c, int) and c >= 0 for c in runs):
            raise ValueError("RLE counts are not all integers >= 0")
    elif isinstance(counts, (str, bytes)):
        runs = _decode_counts(counts)
    else:
        raise ValueError(f"RLE counts are {type(counts).__name__}, expected a list or a string")
    if sum(runs) != height * width:
        raise ValueError(f"RLE run lengths add up to {sum(runs)}, not {height}x{width} = {height * width}")
    return mask_api.frPyObjects(rle, height, width) if isinstance(counts, list) else rle


def _decode_counts(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed string: 5 bits a character, from the third on as differences."""
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
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
