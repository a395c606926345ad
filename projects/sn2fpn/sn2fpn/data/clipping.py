"""The clipping of polygons to an image."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import pairwise
from operator import itemgetter

import numpy as np

__all__ = ["clip_polygon"]

Point = tuple[float, float]
Edge = tuple[Point, Point]


def clip_polygon(polygon: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the parts of a polygon (K, 2) that lie in [0, width] x [0, height], each as a polygon.

    Clipping at one border after the other (Sutherland and Hodgman, 1974) gives a single path, which joins the parts of
    a polygon that is not convex by edges along the border, there and back. They have no area, but they would
    enlarge the box around the polygon, so that they are removed.
    """
    height, width = size
    if (polygon >= 0).all() and (polygon <= (width, height)).all():
        return [polygon] if len(polygon) >= 3 else []
    points: list[Point] = [(x, y) for x, y in polygon.tolist()]
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        points = _half_plane(points, axis, limit, sign)
    loops = _loops(_without_returns(_border_split(points, size), size))
    return [np.array(loop) for loop in loops if len(loop) >= 3]


def _half_plane(points: list[Point], axis: int, limit: float, sign: int) -> list[Point]:
    """Clip a closed path to the side of a border where `sign` times the coordinate minus the limit is not negative."""
    kept: list[Point] = []
    for a, b in zip(points[-1:] + points, points):
        da, db = sign * (a[axis] - limit), sign * (b[axis] - limit)
        if (da < 0) != (db < 0):
            other = a[1 - axis] + (b[1 - axis] - a[1 - axis]) * (da / (da - db))
            kept.append((limit, other) if axis == 0 else (other, limit))
        if db >= 0:
            kept.append(b)
    return kept


def _border_of(a: Point, b: Point, size: tuple[int, int]) -> int | None:
    """Return the axis that an edge runs along if it lies on the border of the image, or else None."""
    for axis, limit in ((0, size[1]), (1, size[0])):
        if a[axis] == b[axis] and a[axis] in (0, limit):
            return 1 - axis
    return None


def _border_split(points: list[Point], size: tuple[int, int]) -> list[Edge]:
    """Return the edges of a closed path, of which those along the border are divided at all points that lie on them."""
    sides = {(axis, limit): _on_side(points, axis, limit) for axis in (0, 1) for limit in (0, size[1 - axis])}
    edges = []
    for a, b in zip(points, points[1:] + points[:1]):
        along = _border_of(a, b, size)
        between: list[Point] = []
        if along is not None:
            (low, high), side = sorted((a[along], b[along])), sides[1 - along, a[1 - along]]
            start, end = bisect_right(side, low, key=itemgetter(along)), bisect_left(side, high, key=itemgetter(along))
            between = side[start:end] if a[along] <= b[along] else side[start:end][::-1]
        edges += [(p, q) for p, q in pairwise([a, *between, b]) if p != q]
    return edges


def _on_side(points: list[Point], axis: int, limit: float) -> list[Point]:
    """Return the points that lie on a side of the image, each once and in their order along it."""
    return sorted({p for p in points if p[axis] == limit}, key=itemgetter(1 - axis))


def _without_returns(edges: list[Edge], size: tuple[int, int]) -> list[Edge]:
    """Remove the edges along the border that the path takes in both directions."""
    kept: dict[int, Edge] = {}
    open_edges: defaultdict[Edge, list[int]] = defaultdict(list)
    for i, (a, b) in enumerate(edges):
        if open_edges[b, a] and _border_of(a, b, size) is not None:
            del kept[open_edges[b, a].pop()]
        else:
            kept[i] = a, b
            open_edges[a, b].append(i)
    return list(kept.values())


def _loops(edges: list[Edge]) -> list[list[Point]]:
    """Join edges to closed paths, each edge to the next one where they meet, and else to any that starts there."""
    starts: defaultdict[Point, list[int]] = defaultdict(list)
    for i, (start, _) in enumerate(edges):
        starts[start].append(i)
    left = set(range(len(edges)))
    loops = []
    for first in range(len(edges)):
        at = first if first in left else None
        loop: list[Point] = []
        while at is not None:
            left.remove(at)
            point, end = edges[at]
            loop.append(point)
            following = [i for i in starts[end] if i in left]
            at = at + 1 if at + 1 in following else min(following, default=None)
        if loop:
            loops.append(loop)
    return loops
