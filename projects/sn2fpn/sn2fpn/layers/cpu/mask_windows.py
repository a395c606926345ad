"""Division of the work of mask pasting into one window per mask.

`paste_masks` takes this division on a CPU, where the pixels outside of the boxes would be most of the work. A GPU
pastes several masks at once over the whole image instead, because many small launches would take longer there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

__all__ = ["windows_of_boxes"]


def windows_of_boxes(boxes: Tensor, size: tuple[int, int], margin: float = 0.0) -> Iterator[tuple[slice, slice, slice]]:
    """Yield for each box that meets the image its index, rows and columns as slices.

    Args:
        boxes (Tensor[N, 4]): corners `(x1, y1, x2, y2)` in pixels of the image.
        size: height and width of the image.
        margin: how far a window reaches beyond its box on each side, as a share of the box's width or height.
    """
    height, width = size
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        dx, dy = margin * (x2 - x1), margin * (y2 - y1)
        left, right = max(math.floor(x1 - dx), 0), min(int(x2 + dx) + 1, width)
        top, bottom = max(math.floor(y1 - dy), 0), min(int(y2 + dy) + 1, height)
        if left < right and top < bottom:
            yield slice(n, n + 1), slice(top, bottom), slice(left, right)
