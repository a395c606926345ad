"""Tests of the clipping of polygons, against formulas that look at the unclipped polygon."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sn2fpn.data import clipping
from sn2fpn.data.clipping import clip_polygon

SIZE = 30, 40  # (height, width)


def contains(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which points (N, 2) a polygon contains: a ray to the right crosses its edges an odd number of times."""
    (x1, y1), (x2, y2), (x, y) = polygon.T[..., None], np.roll(polygon, -1, 0).T[..., None], points.T
    with np.errstate(divide="ignore", invalid="ignore"):
        right = x < x1 + (x2 - x1) * (y - y1) / (y2 - y1)
    return (((y1 <= y) != (y2 <= y)) & right).sum(0) % 2 == 1


def true_box(polygon: np.ndarray) -> np.ndarray:
    """Return the box (x1, y1, x2, y2) around what lies in the image: it ends at one of the points here."""
    height, width = SIZE
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
    found = [polygon, corners[contains(polygon, corners)]]
    for axis, limit in ((0, 0), (0, width), (1, 0), (1, height)):
        a, b = polygon, np.roll(polygon, -1, 0)
        crosses = (a[:, axis] < limit) != (b[:, axis] < limit)
        a, b = a[crosses], b[crosses]
        at = a + (b - a) * ((limit - a[:, axis]) / (b - a)[:, axis])[:, None]
        at[:, axis] = limit
        found.append(at)
    points = np.concatenate(found)
    points = points[((points >= 0) & (points <= (width, height))).all(1)]
    return np.array([*points.min(0), *points.max(0)]) if len(points) else np.zeros(4)


def random_polygon(rng: np.random.Generator) -> np.ndarray:
    """Return a polygon that is not convex and does not cross itself, around a point in the image or beside it."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 20)))
    radii = rng.uniform(2, 60, len(angles))
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    return rng.uniform((-15, -15), (55, 45)) + radii[:, None] * directions


def test_random_polygons() -> None:
    rng = np.random.default_rng(0)
    height, width = SIZE
    grid = np.stack(np.meshgrid(np.arange(0.07, width, 0.5), np.arange(0.07, height, 0.5)), -1).reshape(-1, 2)
    numbers = set()
    for _ in range(400):
        polygon = random_polygon(rng)
        parts = clip_polygon(polygon, SIZE)
        numbers.add(len(parts))
        inside = np.any([np.zeros(len(grid), bool), *(contains(part, grid) for part in parts)], axis=0)
        assert (inside == contains(polygon, grid)).all()
        points = np.concatenate([np.empty((0, 2)), *parts])
        box = np.array([*points.min(0), *points.max(0)]) if parts else np.zeros(4)
        np.testing.assert_allclose(box, true_box(polygon), atol=1e-9)
    assert {0, 1, 2, 3} <= numbers


@pytest.mark.parametrize("turned", [False, True])
def test_what_clipping_leaves_along_the_border(turned: bool) -> None:
    """A hook around a corner would leave a spike, and prongs that enter from two sides a bridge below the image."""
    hook = np.array([[20, 10], [60, 10], [60, 50], [5, 50], [5, 45], [50, 45], [50, 20], [20, 20.0]])
    prongs = np.array([[-9, 5], [8, 5], [8, 9], [-5, 9], [-5, 35], [45, 35], [45, 9], [30, 9], [30, 5], [50, 5.0]])
    prongs = np.concatenate([prongs, [[50, 40], [-9, 40]]])
    order = slice(None, None, -1 if turned else 1)
    (part,) = clip_polygon(hook[order], SIZE)
    assert [*part.min(0), *part.max(0)] == [20, 10, 40, 20]
    parts = clip_polygon(prongs[order], SIZE)
    boxes = sorted([*part.min(0), *part.max(0)] for part in parts)
    assert boxes == [[0, 5, 8, 9], [30, 5, 40, 9]]


def _plain_border_split(points: list[Any], size: tuple[int, int]) -> list[Any]:
    """Do what `_border_split` does, with a search of all points for each edge along the border."""
    edges = []
    for a, b in zip(points, points[1:] + points[:1]):
        axis = clipping._border_of(a, b, size)
        between = []
        if axis is not None:
            low, high = sorted((a[axis], b[axis]))
            between = [p for p in {*points} if p[1 - axis] == a[1 - axis] and low < p[axis] < high]
            between.sort(key=lambda p: p[axis], reverse=a[axis] > b[axis])
        edges += [(p, q) for p, q in pairwise([a, *between, b]) if p != q]
    return edges


def _comb(points: int, below: float) -> np.ndarray:
    """Return an outline that goes below the image at every second point, and is closed at a height beyond it."""
    x, y = np.linspace(1, 39, points), np.where(np.arange(points) % 2, 10, 35) + np.arange(points) % 7 / 10
    return np.concatenate([np.stack([x, y], 1), [[39, below], [1, below]]])


def test_the_border_is_split_as_by_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    polygons = [random_polygon(rng) for _ in range(100)]
    polygons += [rng.uniform(-20, 60, (rng.integers(3, 40), 2)) for _ in range(100)]  # they cross themselves
    polygons += [rng.integers(-3, 12, (rng.integers(3, 40), 2)) * 5.0 for _ in range(100)]  # with points on the border
    polygons += [_comb(99, -3), _comb(99, 50)]
    found = [clip_polygon(polygon, SIZE) for polygon in polygons]
    monkeypatch.setattr(clipping, "_border_split", _plain_border_split)
    for polygon, parts in zip(polygons, found):
        expected = clip_polygon(polygon, SIZE)
        assert len(parts) == len(expected) and all(map(np.array_equal, parts, expected))


@pytest.mark.parametrize(("below", "parts"), [(-3, 1), (50, 4000)])
def test_outlines_with_many_crossings_are_clipped_quickly(below: float, parts: int) -> None:
    """The time grows with the number of points, not with its square, which took 200 times as long as the baseline."""

    def fastest(polygon: np.ndarray) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            clip_polygon(polygon, SIZE)
            times.append(time.process_time() - start)
        return min(times)

    comb = _comb(8000, below)
    assert len(clip_polygon(comb, SIZE)) == parts
    baseline = fastest(comb - (0, 6))  # the same with two crossings
    assert fastest(comb) < 20 * baseline


def test_a_hole_stays_a_hole() -> None:
    """Its polygon enters the hole by a cut from outside of the image, and leaves it by the same cut."""
    hole = [[20, -9], [20, 10], [10, 10], [10, 20], [20, 20], [20, 10], [20, -9]]
    polygon = np.array([[-9, -9], [-9, 39], [49, 39], [49, -9], *hole], np.float64)
    (part,) = clip_polygon(polygon, SIZE)
    points = np.array([[15, 15], [5, 15], [25, 15], [15, 5]])
    assert contains(part, points).tolist() == [False, True, True, True]


def test_what_is_not_cut() -> None:
    polygon = np.array([[0, 0], [40, 0], [40, 30.0]])
    assert clip_polygon(polygon, SIZE)[0] is polygon
    assert clip_polygon(polygon + 50, SIZE) == [] and clip_polygon(polygon[:2], SIZE) == []
