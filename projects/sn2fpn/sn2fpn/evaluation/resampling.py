"""Precision and recall for images that are drawn with repetition: detections are matched once and counted many times.

Whether a detection is right depends only on its image. Therefore a data set in which image i occurs w_i times has the
same score as the original data set in which every detection and every object of image i counts w_i times. The copies of
a detection share its rank. This does not change the average precision, because the copies of a right detection only
raise the precision, and because the best precision after a right detection does not lie between two of its copies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

__all__ = ["JudgedDetections", "Ranking", "average_precision", "draw_images", "mean_over_classes"]

_CHUNK = 2**22  # number of elements of a temporary array


class Ranking(NamedTuple):
    """The D detections of one class on I images by descending score, judged at T IoU thresholds."""

    image: np.ndarray  # (D,) int64, the position of each detection's image
    right: np.ndarray  # (T, D) bool
    counted: np.ndarray  # (T, D) bool, False for detections of objects that do not count
    objects: np.ndarray  # (I,) int64, the number of objects of each image that count
    place: np.ndarray | None = None  # (D,) int64, how many detections of the class in the same image come before


@dataclass(frozen=True)
class JudgedDetections:
    """The judged detections of one task on I images, which are scored for any weights of the images.

    Attributes:
        class_names: the class names by contiguous id.
        rankings: a ranking per class, by range of object sizes ("" for all sizes, "s", "m", "l"). All have the
            thresholds 0.50, 0.55, …, 0.95.
        recall_points: the recalls at which precision is measured; None takes the area under the curve.
        recalls: by the name of an average recall, how many detections per image and class it counts. The recall "AR" is
            also computed by size. The rankings need `place` for them.
        ap50_by_class: whether "AP50-<class>" is a score, too.
    """

    class_names: Sequence[str]
    rankings: dict[str, list[Ranking]]
    recall_points: np.ndarray | None
    recalls: Mapping[str, int] = field(default_factory=dict)
    ap50_by_class: bool = False

    @property
    def num_images(self) -> int:
        return len(self.rankings[""][0].objects)

    def metric_names(self) -> list[str]:
        """Return the names of the scores."""
        return [name for size in self.rankings for name in self._names(size)]

    def _names(self, size: str) -> list[str]:
        """Return the names of the scores of a range of sizes."""
        kinds = ("AP", "AP50") if self.ap50_by_class else ("AP",)
        by_class = [f"{kind}-{name}" for kind in kinds for name in self.class_names]
        return [f"AP{size}", *([] if size else ["AP50", "AP75", *by_class]), *self._recalls(size)]

    def _recalls(self, size: str) -> dict[str, int]:
        return {f"{name}{size}": number for name, number in self.recalls.items() if not size or name == "AR"}

    def scores(
        self, weights: np.ndarray | None = None, metrics: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Compute the scores in percent by their names ("AP", "AP50", "AP75", "APs", "AR", …, "AP-<class>", …).

        As in the evaluators, classes without objects do not count in the means, and a mean without classes is NaN.

        Args:
            weights: (B, I), how often each image occurs in each of B samples; None takes each image once (B = 1).
            metrics: the names of the scores to compute; None computes all.

        Returns:
            Arrays of shape (B,).
        """
        if weights is None:
            weights = np.ones((1, self.num_images))
        wanted = set(self.metric_names() if metrics is None else metrics)
        out: dict[str, np.ndarray] = {}
        for size in self.rankings:
            recalls = self._recalls(size)
            names = [name for name in self._names(size) if name not in recalls]
            if wanted & set(names):
                ap = self.average_precision(size, weights)
                mean = mean_over_classes(ap)
                by_class = [*ap.mean(axis=1), *(ap[:, 0] if self.ap50_by_class else ())]
                found = (mean.mean(axis=0),) if size else (mean.mean(axis=0), mean[0], mean[5], *by_class)
                out |= dict(zip(names, found))
            for name in wanted & recalls.keys():
                out[name] = mean_over_classes(self.average_recall(size, recalls[name], weights))
        return {name: out[name] for name in (self.metric_names() if metrics is None else metrics)}

    def average_recall(self, size: str, number: int, weights: np.ndarray) -> np.ndarray:
        """Compute the recall in percent of each class as the mean over the IoU thresholds.

        Args:
            size: a range of object sizes, see `rankings`.
            number: how many detections of a class count per image, by descending score.
            weights: see `scores`.

        Returns:
            An array of shape (classes, B) that is NaN for classes without objects.
        """
        rows = []
        for ranking in self.rankings[size]:
            right = ranking.right & (ranking.place < number)
            found = np.zeros((len(right), self.num_images))
            for row, at_threshold in zip(found, right):
                row += np.bincount(ranking.image[at_threshold], minlength=self.num_images)
            objects = weights @ ranking.objects
            with np.errstate(invalid="ignore"):  # 0 / 0 without objects
                rows.append(100 * (weights @ found.mean(axis=0)) / objects)
        return np.stack(rows)

    def average_precision(self, size: str = "", weights: np.ndarray | None = None) -> np.ndarray:
        """Compute the average precision in percent of each class at each IoU threshold.

        Args:
            size: a range of object sizes, see `rankings`.
            weights: see `scores`.

        Returns:
            An array of shape (classes, thresholds, B) that is NaN for classes without objects.
        """
        if weights is None:
            weights = np.ones((1, self.num_images))
        by_image = np.ascontiguousarray(np.asarray(weights, np.float32).T)  # float32 represents counts exactly
        return 100 * np.stack([_in_chunks(ranking, by_image, self.recall_points) for ranking in self.rankings[size]])


def mean_over_classes(ap: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of the values that are not NaN, or NaN if all of them are NaN."""
    known = ~np.isnan(ap)
    with np.errstate(invalid="ignore"):  # 0 / 0 if no value is known
        return np.where(known, ap, 0).sum(axis=0) / known.sum(axis=0)


def average_precision(recall: np.ndarray, precision: np.ndarray, recall_points: np.ndarray | None) -> np.ndarray:
    """Compute the average precision, in 0..1, of B curves.

    With p(r) the best precision at a recall of at least r, the average precision is the mean of p over `recall_points`,
    or the area under p.

    Args:
        recall: (N, B) non-decreasing recalls.
        precision: (N, B) precisions, which are overwritten.
        recall_points: equally spaced recalls from 0 to 1; None takes the area under the curve.

    Returns:
        An array of shape (B,).
    """
    # Each precision becomes the best one from there on.
    if precision.shape[1] == 1:  # for a single curve, one call for all rows is faster than one per row
        np.maximum.accumulate(precision[::-1], axis=0, out=precision[::-1])
    else:
        for after, before in zip(precision[::-1], precision[-2::-1]):
            np.maximum(before, after, out=before)
    reached = recall if recall_points is None else _points_reached(recall, recall_points)
    total = precision[0] * reached[0] + (precision[1:] * (reached[1:] - reached[:-1])).sum(axis=0)
    return total if recall_points is None else total / len(recall_points)


def _in_chunks(ranking: Ranking, by_image: np.ndarray, recall_points: np.ndarray | None) -> np.ndarray:
    """Compute `_of_ranking` for a part of the samples at a time, to limit the memory."""
    parts = max(1, -(-by_image.shape[1] * np.count_nonzero(ranking.right.any(axis=0)) // _CHUNK))
    chunks = np.array_split(by_image, parts, axis=1)
    return np.concatenate([_of_ranking(ranking, chunk, recall_points) for chunk in chunks], axis=1)


def _of_ranking(ranking: Ranking, by_image: np.ndarray, recall_points: np.ndarray | None) -> np.ndarray:
    """Compute the average precision of one class at T thresholds in B samples, (T, B); NaN without objects.

    Args:
        ranking: the judged detections of the class.
        by_image: (I, B) float32, how often each image occurs in each sample.
        recall_points: see `JudgedDetections`.
    """
    image, right, counted = ranking.image, ranking.right, ranking.counted
    objects = ranking.objects.astype(by_image.dtype) @ by_image  # (B,)
    out = np.zeros((len(right), by_image.shape[1]))
    # Recall only changes at right detections, and precision peaks there. Therefore the other detections are only
    # counted up to each right one, and those that count at all thresholds are counted once for all thresholds.
    always, ever_right = counted.all(axis=0), right.any(axis=0)
    always_found = _totals(by_image, image, always, ever_right)
    for t in range(len(right)):
        found = _totals(by_image, image, right[t], right[t])  # right detections up to each of R right ones, (R, B)
        if not len(found):
            continue
        all_found = always_found[right[t][ever_right]]
        sometimes = counted[t] & ~always
        if sometimes.any():
            all_found += _totals(by_image, image, sometimes, right[t])
        precision = np.divide(found, np.maximum(all_found, 1), dtype=np.float64)
        recall = np.divide(found, np.maximum(objects, 1), dtype=np.float64)
        out[t] = average_precision(recall, precision, recall_points)
    out[:, objects == 0] = np.nan
    return out


def _totals(by_image: np.ndarray, image: np.ndarray, added: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Sum the weights of the detections `added`, (D,) bool, up to each of the detections `wanted`, (D,) bool.

    The sums have the shape (wanted, B). For several samples they are computed row by row, which is several times faster
    than np.cumsum over the first axis and needs no array of shape (D, B).
    """
    ends = np.flatnonzero(wanted)
    if by_image.shape[1] == 1:
        return np.cumsum(np.where(added, by_image[image, 0], 0), dtype=by_image.dtype)[ends, None]
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
    """Count the points, equally spaced from 0 to 1, that each recall reaches; this is faster than np.searchsorted."""
    nearest = (recall * (len(points) - 1) + 1e-9).astype(np.intp)  # the highest point reached, up to rounding
    return nearest + (points[nearest] <= recall)


def draw_images(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Draw `images` images with repetition, and return how often each is drawn, (resamples, images) int64."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
