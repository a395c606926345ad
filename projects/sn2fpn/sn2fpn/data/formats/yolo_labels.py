"""The objects in the label files of YOLO, whose lines are boxes or polygons in fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..problems import Unusable
from ..readings import depends_on
from ..values import read_whole
from .found import Found, FoundObject
from .source import read_text

__all__ = ["TRACKED", "is_triangle", "read_labels"]

TRACKED = "if they are a box, a score and a track number, remove the last two numbers of each line"
"""The advice for lines with two numbers more than a box has."""
_LARGEST = 2.0  # fractions beyond this are numbers of pixels


def read_labels(file: Path, record: dict[str, Any], has_keypoints: bool) -> Iterator[Found]:
    """Yield the objects in a label file; there are none if the file does not exist."""
    depends_on(file)
    if not file.is_file():
        return
    for i, line in enumerate(read_text(file).splitlines(), 1):
        if line.strip():
            try:
                found: FoundObject | Unusable = _read_line(line, record["height"], record["width"], has_keypoints)
            except Unusable as e:
                found = e
            yield f"line {i}", found


def is_triangle(item: FoundObject | Unusable) -> bool:
    """Return whether an object is a polygon of three points, which may be a line of a tracker instead."""
    return isinstance(item, FoundObject) and item.segmentation is not None and len(item.segmentation[0]) == 6


def _read_line(line: str, height: int, width: int, has_keypoints: bool) -> FoundObject:
    """Return the object of a line. An Unusable says why it has none."""
    number, *texts = line.split()
    category = read_whole(number)
    if category is None:
        raise Unusable("of an unknown class", f"{number[:40]!r} is not the number of a class")
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise Unusable("without a valid line", f"{line.strip()[:80]!r} is not the number of a class and finite numbers")
    values = values[:4] if has_keypoints else values
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        expected = "expected 4 (a box) or an even number from 6 on (a polygon)"
        score = "; a fifth number is the score of a prediction" if len(values) == 5 else ""
        raise Unusable("without a valid line", f"{len(values)} numbers follow the class, {expected}{score}")
    if len(values) == 6 and max(map(abs, values[:5])) <= 1 < values[5] and values[5].is_integer():
        reason = f"the last of 6 numbers after the class is {values[5]:g}, expected a fraction of the image; {TRACKED}"
        raise Unusable("without a valid line", reason)
    if max(map(abs, values)) > _LARGEST:
        reason = f"{line.strip()[:80]!r} has numbers up to {max(values):g}, expected fractions of the image from 0 to 1"
        raise Unusable("in pixels instead of fractions", reason)
    if len(values) > 4:
        polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
        return FoundObject(category, None, [polygon])
    x, y, w, h = values
    corners = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    return FoundObject(category, corners)
