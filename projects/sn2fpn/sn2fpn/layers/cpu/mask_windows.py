"""Division of the work of mask pasting into one window per mask.

`paste_masks` takes this division on a CPU, where the pixels outside of the boxes would be most of the work. A GPU
pastes several masks at once over the whole image instead, because many small launches would take longer there.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

__all__ = ["windows_of_boxes"]


def windows_of_boxes(boxes: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Yield for each box that meets the image its index, rows and columns as slices.

    Args:
        boxes (Tensor[N, 4]): corners `(x1, y1, x2, y2)` in pixels of the image.
        size: height and width of the image.
    """
    height, width = size
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        left, right = max(int(x1), 0), min(int(x2) + 1, width)
        top, bottom = max(int(y1), 0), min(int(y2) + 1, height)
        if left < right and top < bottom:
            yield slice(n, n + 1), slice(top, bottom), slice(left, right)
