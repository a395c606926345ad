"""COCO's matching of detections with objects, for all images and classes of a data set at once.

The rules and the results are those of pycocotools' `COCOeval`, which loops over images, classes, sizes, thresholds,
detections and objects in Python. Here, the pairs of an image and a class are treated side by side: in step k, the k-th
best detection of each pair chooses its object, for all sizes and thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .resampling import Ranking

__all__ = ["IOU_THRESHOLDS", "RECALL_POINTS", "SIZES", "Found", "Objects", "rank"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
SIZES = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""The ranges of areas in square pixels, both ends included, by the endings of the names of their scores."""

_CHUNK = 2**21  # number of elements of a temporary array


@dataclass(frozen=True)
class _Items:
    image: np.ndarray  # (N,) int64, positions of images
    label: np.ndarray  # (N,) int64, contiguous class ids
    area: np.ndarray  # (N,) float64, square pixels
    boxes: np.ndarray  # (N, 4) float64 (x, y, width, height)
    masks: np.ndarray | None  # (N,) RLE dicts; with masks, overlaps are those of masks

    def __getitem__(self, which: np.ndarray) -> Any:
        values = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(None if value is None else value[which] for value in values))


@dataclass(frozen=True)
class Objects(_Items):
    """The objects of a data set."""

    crowd: np.ndarray  # (N,) bool


@dataclass(frozen=True)
class Found(_Items):
    """The detections on a data set."""

    score: np.ndarray  # (N,) float64


def rank(objects: Objects, found: Found, images: int, classes: int, max_dets: int) -> dict[str, list[Ranking]]:
    """Match all detections with objects.

    Args:
        objects: the objects.
        found: the detections.
        images: the number of images; detections with equal scores are ranked in the order of the images.
        classes: the number of classes.
        max_dets: how many detections count per image and class.

    Returns:
        For each range of `SIZES`, a ranking per class.
    """
    objects = objects[np.lexsort((objects.image, objects.label))]
    found = found[np.lexsort((-found.score, found.image, found.label))]
    group = found.label * images + found.image
    place = np.arange(len(group)) - np.searchsorted(group, group)
    found, group, place = found[place < max_dets], group[place < max_dets], place[place < max_dets]
    ignored_objects = objects.crowd[:, None] | _outside(objects.area)
    matched, ignored = _match(objects, found, objects.label * images + objects.image, group, ignored_objects)
    ignored |= ~matched & _outside(found.area)[:, :, None]
    rankings: dict[str, list[Ranking]] = {size: [] for size in SIZES}
    ends, object_ends = (np.searchsorted(items.label, np.arange(classes + 1)) for items in (found, objects))
    for c in range(classes):
        mine = np.arange(ends[c], ends[c + 1])
        mine = mine[np.argsort(-found.score[mine], kind="stable")]
        theirs = slice(object_ends[c], object_ends[c + 1])
        for a, size in enumerate(SIZES):
            counted = ~ignored[mine, a].T
            present = objects.image[theirs][~ignored_objects[theirs, a]]
            number = np.bincount(present, minlength=images)
            rankings[size].append(
                Ranking(found.image[mine], matched[mine, a].T & counted, counted, number, place[mine])
            )
    return rankings


def _outside(area: np.ndarray) -> np.ndarray:
    """Tell of (N,) areas whether they are outside of each of the ranges of `SIZES`, (N, A) bool."""
    low, high = np.array(list(SIZES.values())).T
    return (area[:, None] < low) | (area[:, None] > high)


def _match(
    objects: Objects, found: Found, group_of_object: np.ndarray, group: np.ndarray, ignored_objects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give detections objects, and tell which detections have one, and which have one that is ignored.

    Args:
        objects, found: the objects and the detections, sorted by group, and the detections of a group by score.
        group_of_object, group: the groups, each of which is a class in an image.
        ignored_objects: (objects, A) bool, which objects do not count at each size.

    Returns:
        Two arrays of shape (detections, A, T), bool.
    """
    matched, ignored = np.zeros((2, len(group), len(SIZES), len(IOU_THRESHOLDS)), bool)
    both = np.intersect1d(group, group_of_object)
    first, first_object = np.searchsorted(group, both), np.searchsorted(group_of_object, both)
    number = np.searchsorted(group, both, "right") - first
    number_of_objects = np.searchsorted(group_of_object, both, "right") - first_object
    for part in _chunks(number, number_of_objects):
        k = np.arange(number[part].max())
        # Objects are in reverse, because the last one of equally near objects is chosen and argmax finds the first.
        g = np.arange(number_of_objects[part].max())
        present = g < number_of_objects[part, None]
        theirs = np.where(present, first_object[part, None] + number_of_objects[part, None] - 1 - g, 0)
        mine = np.minimum(first[part, None] + k, len(group) - 1)
        iou = _overlaps(objects, found, theirs, mine, number_of_objects[part], number[part])
        iou[np.broadcast_to(~present[:, None], iou.shape)] = -1
        hit, on_ignored = _choose(iou, number[part], objects.crowd[theirs], ignored_objects[theirs])
        real = k < number[part, None]
        matched[mine[real]], ignored[mine[real]] = hit[real], on_ignored[real]
    return matched, ignored


def _chunks(number: np.ndarray, number_of_objects: np.ndarray) -> Iterator[np.ndarray]:
    """Yield positions of groups of similar size, by descending number of detections, with limited memory."""
    power = np.ceil(np.log2(np.maximum(number_of_objects, 1))).astype(int)
    order = np.lexsort((-number, power))
    for same in np.split(order, np.flatnonzero(np.diff(power[order])) + 1):
        while len(same):
            widest = number_of_objects[same].max() * max(number[same[0]], len(SIZES) * len(IOU_THRESHOLDS))
            some = max(1, _CHUNK // int(widest))
            yield same[:some]
            same = same[some:]


def _choose(
    iou: np.ndarray, number: np.ndarray, crowd: np.ndarray, ignored_objects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let the detections of P groups choose objects, one after the other, for all sizes and thresholds.

    A detection takes the nearest free object that counts, or else the nearest one that does not. Crowds stay free.

    Args:
        iou: (P, K, G), -1 for objects that do not exist.
        number: (P,) the descending numbers of detections.
        crowd: (P, G) bool.
        ignored_objects: (P, G, A) bool.

    Returns:
        Whether each detection has an object, and whether it has one that does not count, (P, K, A, T) bool.
    """
    groups, most, objects = iou.shape
    shape = (groups, len(SIZES), len(IOU_THRESHOLDS), objects)
    free = np.ones(shape, bool)
    counts = ~ignored_objects.transpose(0, 2, 1)[:, :, None]  # (P, A, 1, G)
    hit, on_ignored = np.zeros((2, groups, most, *shape[1:3]), bool)
    for k in range(most):
        n = np.searchsorted(-number, -k)  # the groups with more than k detections
        near = iou[:n, k, None, None]  # (n, 1, 1, G)
        allowed = (near >= IOU_THRESHOLDS[:, None]) & (free[:n] | crowd[:n, None, None])
        of_counted = np.where(allowed & counts[:n], near, -1.0)
        of_ignored = np.where(allowed & ~counts[:n], near, -1.0)
        has_counted, has_ignored = of_counted.max(axis=3) >= 0, of_ignored.max(axis=3) >= 0
        chosen = np.where(has_counted, of_counted.argmax(axis=3), of_ignored.argmax(axis=3))
        hit[:n, k] = has_counted | has_ignored
        on_ignored[:n, k] = has_ignored & ~has_counted
        where = np.nonzero(hit[:n, k])
        free[(*where, chosen[where])] = False
    return hit, on_ignored


def _overlaps(
    objects: Objects, found: Found, theirs: np.ndarray, mine: np.ndarray, number_of_objects: Sequence, number: Sequence
) -> np.ndarray:
    """Return the IoU, (P, K, G), of the detections `mine`, (P, K), with the objects `theirs`, (P, G).

    The overlap with a crowd is the share of the detection that is inside.
    """
    if found.masks is None or objects.masks is None:
        return _box_overlaps(found.boxes[mine][:, :, None], objects.boxes[theirs][:, None], objects.crowd[theirs])
    iou = np.zeros((*mine.shape, theirs.shape[1]))
    for row, own, their, k, g in zip(iou, mine, theirs, number, number_of_objects):
        crowd = objects.crowd[their[:g]].astype(np.uint8).tolist()
        row[:k, :g] = coco_mask.iou(found.masks[own[:k]].tolist(), objects.masks[their[:g]].tolist(), crowd)
    return iou


def _box_overlaps(found: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (x, y, width, height), in the order of operations of pycocotools.

    Args:
        found: (P, K, 1, 4).
        objects: (P, 1, G, 4).
        crowd: (P, G) bool.
    """
    (x, y, w, h), (ox, oy, ow, oh) = np.moveaxis(found, 3, 0), np.moveaxis(objects, 3, 0)
    width, height = np.minimum(x + w, ox + ow) - np.maximum(x, ox), np.minimum(y + h, oy + oh) - np.maximum(y, oy)
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    union = np.where(crowd[:, None], w * h, w * h + ow * oh - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
