"""Made-up objects."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["octagon"]


def octagon(box: Sequence[float]) -> list[float]:
    """Return the corners of an octagon that fills a box (x1, y1, x2, y2), as x, y, x, y, …"""
    x1, y1, x2, y2 = box
    xs, ys = (x1, (2 * x1 + x2) / 3, (x1 + 2 * x2) / 3, x2), (y1, (2 * y1 + y2) / 3, (y1 + 2 * y2) / 3, y2)
    around = ((1, 0), (2, 0), (3, 1), (3, 2), (2, 3), (1, 3), (0, 2), (0, 1))
    return [value for i, j in around for value in (xs[i], ys[j])]
