"""Scores of a set's images drawn with repetition, for bootstraps: matched once, then only counted again.

Which detections are right depends on nothing outside their image, so a set in which image i occurs w_i times scores as
the original one with every detection and every object of i counted w_i times. Copies of a detection share its place in
the ranking, which changes no average precision: a right detection's copies only raise precision, and between two right
ones the best precision is that at the first of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["JudgedDetections", "Ranking", "average_precision_of", "draw_images"]

_CHUNK = 2**22  # numbers in a temporary array


class Ranking(NamedTuple):
    """The detections of one class as a metric judges them, best score first, at T IoU thresholds."""

    image: np.ndarray  # (D,) int64, position of the image that each detection is of
    right: np.ndarray  # (T, D) bool
    counted: np.ndarray  # (T, D) bool, right or wrong; the others found what does not count
    objects: np.ndarray  # (I,) int64, how many objects of each image count


@dataclass(frozen=True)
class JudgedDetections:
    """The detections of one task on I images; gives the metric's scores for any weights of the images.

    Attributes:
        class_names: of the contiguous ids.
        rankings: per range of sizes ("" for all, "s", "m", "l") a ranking per class, all with the thresholds
            0.50, 0.55, …, 0.95.
        recall_points: where precision is read off; None: the area under the curve.
    """

    class_names: Sequence[str]
    rankings: dict[str, list[Ranking]]
    recall_points: np.ndarray | None

    @property
    def num_images(self) -> int:
        return len(self.rankings[""][0].objects)

    def metric_names(self) -> list[str]:
        """The names of `scores`."""
        return [name for size in self.rankings for name in self._names(size)]

    def _names(self, size: str) -> list[str]:
        return [f"AP{size}"] if size else ["AP", "AP50", "AP75", *(f"AP-{name}" for name in self.class_names)]

    def scores(
        self, weights: np.ndarray | None = None, metrics: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The metric's scores in percent by its names ("AP", "AP50", "AP75", "APs", …, "AP-<class>", …).

        As in the evaluators, classes without objects are in no mean, and what has none at all is NaN.

        Args:
            weights: (B, I) how often each image occurs in each of B samples; None: each once, B = 1.
            metrics: the names wanted; None: all.

        Returns:
            Arrays (B,).
        """
        if weights is None:
            weights = np.ones((1, self.num_images))
        by_image = np.ascontiguousarray(np.asarray(weights, np.float32).T)  # in float32 counts are exact
        out: dict[str, np.ndarray] = {}
        for size, of_size in self.rankings.items():
            names = self._names(size)
            if metrics is not None and not set(names) & set(metrics):
                continue
            ap = 100 * np.stack([average_precision_of(r, by_image, self.recall_points) for r in of_size])  # (K, T, B)
            known = ~np.isnan(ap)
            with np.errstate(invalid="ignore"):  # nothing known: 0 / 0
                mean = np.where(known, ap, 0).sum(axis=0) / known.sum(axis=0)  # (T, B)
            out |= dict(zip(names, (mean.mean(axis=0), mean[0], mean[5], *ap.mean(axis=1))))
        return {name: out[name] for name in (out if metrics is None else metrics)}


def average_precision_of(ranking: Ranking, by_image: np.ndarray, recall_points: np.ndarray | None) -> np.ndarray:
    """Average precision, in 0..1, at each of T thresholds in each of B samples, (T, B); NaN without objects.

    Args:
        by_image: (I, B) float32, how often each image occurs.
        recall_points: see `JudgedDetections`.
    """
    parts = max(1, -(-by_image.shape[1] * np.count_nonzero(ranking.right.any(axis=0)) // _CHUNK))
    chunks = np.array_split(by_image, parts, axis=1)
    return np.concatenate([_average_precision(ranking, chunk, recall_points) for chunk in chunks], axis=1)


def _average_precision(ranking: Ranking, by_image: np.ndarray, recall_points: np.ndarray | None) -> np.ndarray:
    image, right, counted = ranking.image, ranking.right, ranking.counted
    objects = ranking.objects.astype(by_image.dtype) @ by_image  # (B,)
    out = np.zeros((len(right), by_image.shape[1]))
    # Only right detections move the recall, and precision peaks at them: the others are counted on the way there,
    # those that count at all thresholds at once.
    always, ever_right = counted.all(axis=0), right.any(axis=0)
    always_found = _totals(by_image, image, always, ever_right)
    for t in range(len(right)):
        found = _totals(by_image, image, right[t], right[t])  # right ones up to each of R right ones, (R, B)
        if not len(found):
            continue
        all_found = always_found[right[t][ever_right]]
        sometimes = counted[t] & ~always
        if sometimes.any():
            all_found += _totals(by_image, image, sometimes, right[t])
        precision = np.divide(found, np.maximum(all_found, 1), dtype=np.float64)
        for after, before in zip(precision[::-1], precision[-2::-1]):
            np.maximum(before, after, out=before)  # the best from here on
        recall = np.divide(found, np.maximum(objects, 1), dtype=np.float64)
        reached = recall if recall_points is None else _points_reached(recall, recall_points)
        out[t] = precision[0] * reached[0] + (precision[1:] * (reached[1:] - reached[:-1])).sum(axis=0)
    if recall_points is not None:
        out /= len(recall_points)
    out[:, objects == 0] = np.nan
    return out


def _totals(by_image: np.ndarray, image: np.ndarray, added: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights of the detections `added`, (D,) bool, summed up to each of those `wanted`, (D,) bool; (wanted, B).

    Row by row: that is several times faster than np.cumsum over the first axis, and needs no (D, B) array.
    """
    ends = np.flatnonzero(wanted)
    out = np.empty((len(ends), by_image.shape[1]), by_image.dtype)
    if not len(ends):
        return out
    steps = np.flatnonzero((added | wanted)[: ends[-1] + 1])
    weights, total, rows = list(by_image), np.zeros_like(out[0]), iter(out)
    for i, add, want in zip(image[steps].tolist(), added[steps].tolist(), wanted[steps].tolist()):
        if add:
            total += weights[i]
        if want:
            np.copyto(next(rows), total)
    return out


def _points_reached(recall: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How many of `points`, equally spaced from 0 to 1, each recall reaches: searchsorted from the right, faster."""
    nearest = (recall * (len(points) - 1) + 1e-9).astype(np.intp)  # the highest reached, but for the last digit
    return nearest + (points[nearest] <= recall)


def draw_images(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """(resamples, images) int64: how often each image is drawn in as many draws with repetition as there are images."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
