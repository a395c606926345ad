"""The statistics of a study: means over seeds, differences, and which of these are more than noise.

Two kinds of noise are kept apart. Training with another seed gives another detector, so means have intervals of
Student's t over the seeds. Other test images give other scores, so differences also have bootstrap intervals over the
images. The bootstrap is paired: all variants see the same resampled images.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from ...errors import UserError, did_you_mean
from ...evaluation import draw_images

if TYPE_CHECKING:
    from ...evaluation.detections import DetectionEvaluator, ImageDetections

__all__ = [
    "Bootstrap",
    "Interval",
    "RankCorrelation",
    "Verdict",
    "chance",
    "compare_resampled",
    "distinguishable",
    "holm",
    "larger_p",
    "mean_interval",
    "paired_difference",
    "rank_correlation",
    "resample",
]

ALPHA = 0.05
RESAMPLES = 1000  # of the test images, for few comparisons
_ROUNDING = 1e-9  # values that differ by no more than this part of the largest, or of 1, are equal
_NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval, which is NaN with fewer than two values."""

    mean: float  # NaN without a value
    low: float
    high: float
    n: int  # number of values
    p: float  # of the t-test against 0, which is the paired test for paired differences; NaN like the interval
    """Of several values that are equal up to rounding, whose spread no t-test can estimate, it is the sign test's."""


@dataclass(frozen=True)
class Bootstrap:
    """A difference of scores, the percentile interval of its resampled values, and its two-sided p-value.

    All of them are NaN where there are no predictions to resample.
    """

    difference: float = _NAN
    low: float = _NAN
    high: float = _NAN
    p: float = _NAN


@dataclass(frozen=True)
class Verdict:
    """Whether a difference to the baseline is more than noise."""

    distinguishable: bool
    p: float  # after Holm's correction, NaN when there is none
    text: str  # the difference, the verdict and its reason as a full sentence


def mean_interval(values: Sequence[float | None], confidence: float = 0.95) -> Interval:
    """Return the mean of a score over seeds and its Student-t interval; None and NaN are left out."""
    found = np.array([v for v in values if v is not None and not np.isnan(v)], dtype=np.float64)
    n = len(found)
    mean = float(found.mean()) if n else _NAN
    if n < 2:
        return Interval(mean, _NAN, _NAN, n, _NAN)
    rounding = _ROUNDING * max(1.0, float(np.abs(found).max()))
    if np.ptp(found) <= rounding:  # the statistic of the t-test would be 0 / 0 or infinite, or that of rounding errors
        mean = mean if abs(mean) > rounding else 0.0
        return Interval(mean, mean, mean, n, 2.0 ** (1 - n) if mean else 1.0)
    test = stats.ttest_1samp(found, 0)
    low, high = test.confidence_interval(confidence)
    return Interval(mean, float(low), float(high), n, float(test.pvalue))


def paired_difference(a: Sequence[float | None], b: Sequence[float | None], confidence: float = 0.95) -> Interval:
    """Return the mean of a - b, seed by seed, and its interval; pairs in which a number is missing are left out."""
    return mean_interval([x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None], confidence)


def resample(
    truth: DetectionEvaluator,
    predictions: Sequence[list[ImageDetections]],
    metrics: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Compute a variant's mean scores over its seeds on the test images and on resampled test images.

    The draws depend only on `resamples`, `seed` and the data set, so those of all variants are paired.

    Args:
        truth: The evaluator of the test set (`build_evaluator`).
        predictions: The detections of each seed (`truth.read_detections`).
        metrics: For example "bbox/AP", "segm/APs" or "bbox/AP-<class>".
        resamples: Number of resampled sets of images.
        seed: Seed of the draws.

    Returns:
        {metric: (1 + resamples,) scores}; the first score is the measured one.

    Raises:
        UserError: There are no predictions or fewer than two images, or the evaluator does not have a metric.
    """
    if not predictions:
        raise UserError("a bootstrap needs the predictions of at least one seed, found none")
    if len(truth.records) < 2:
        raise UserError(f"a bootstrap needs at least two images, found {len(truth.records)}")
    by_task: dict[str, list[str]] = {}
    for metric in metrics:
        task, _, name = metric.partition("/")
        by_task.setdefault(task, []).append(name)
    means: dict[str, np.ndarray] = {}
    for of_seed in predictions:
        judged = truth.judge(of_seed)
        for task, names in by_task.items():
            if task not in judged:
                raise UserError(f"metric of {task!r}: the predictions only have {' and '.join(judged)}")
            known, images = judged[task].metric_names(), judged[task].num_images
            if unknown := [name for name in names if name not in known]:
                raise UserError(f"unknown metric {task}/{unknown[0]}{did_you_mean(unknown[0], known)}")
            weights = np.concatenate([np.ones((1, images)), draw_images(images, resamples, seed)])
            for name, values in judged[task].scores(weights, names).items():
                means[f"{task}/{name}"] = means.get(f"{task}/{name}", 0) + values / len(predictions)
    return means


def compare_resampled(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Bootstrap:
    """Return the difference a - b of one metric, from what `resample` gave for two variants.

    The interval holds the middle `confidence` of the B resampled differences. The p-value is twice the share of them on
    the other side of zero, where one more is counted (Davison and Hinkley, 1997, section 4.2): at least 2 / (B + 1).
    """
    difference, *_ = observed = a - b
    resampled = observed[1:][~np.isnan(observed[1:])]
    if np.isnan(difference) or not len(resampled):
        return Bootstrap(float(difference), _NAN, _NAN, _NAN)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    return Bootstrap(float(difference), float(low), float(high), min(1.0, 2 * (tail + 1) / (len(resampled) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979). NaN stay NaN, but count as comparisons."""
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p)):  # NaN come last
        if not np.isnan(p[i]):
            out[i] = highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
    return out.tolist()


def distinguishable(
    comparisons: Mapping[str, tuple[Interval, Bootstrap]], baseline: str, metric: str = "AP", alpha: float = ALPHA
) -> dict[str, Verdict]:
    """Judge which variants differ from the baseline by more than noise.

    A difference must survive both kinds of noise: the larger of its p-values over seeds and over images is below
    `alpha` after Holm's correction for the number of variants that are compared.

    Args:
        comparisons: For each variant, its difference to the baseline over seeds and over resampled images.
        baseline: Name of the baseline in the sentences.
        metric: Name of the metric in the sentences.
        alpha: Level of significance.
    """
    worst = [larger_p(seeds, images) for seeds, images in comparisons.values()]
    verdicts = {}
    for (variant, (seeds, images)), p in zip(comparisons.items(), holm(worst)):
        found = _measured(variant, baseline, metric, seeds.mean)
        corrected = f" after Holm's correction for {len(worst)} comparisons" if len(worst) > 1 else ""
        if p < alpha:
            reason = f"which is more than the noise of seeds and test images (p = {chance(p)}{corrected})"
        else:
            reason = f"which may be noise, because {_reason(seeds, images, alpha, f'{chance(p)}{corrected}')}"
        differs = seeds.mean != 0 and not np.isnan(seeds.mean)
        text = f"{found}, {reason}." if differs else f"{found}."
        verdicts[variant] = Verdict(p < alpha, p, text)
    return verdicts


def larger_p(seeds: Interval, images: Bootstrap) -> float:
    """Return the larger p-value of a difference, NaN if one of them is not known."""
    return float(np.max((seeds.p, images.p)))


def _measured(variant: str, baseline: str, metric: str, difference: float) -> str:
    """Return the measured difference in words."""
    if np.isnan(difference):
        return f"{variant} cannot be compared with {baseline}, because no seed has the {metric} of both"
    if difference == 0:
        return f"{variant} has the same {metric} as {baseline}"
    size = f"{abs(difference):.2f}" if abs(difference) >= 0.005 else f"{abs(difference):.1g}"
    return f"{variant} has {size} points of {metric} {'more' if difference > 0 else 'less'} than {baseline}"


def _reason(seeds: Interval, images: Bootstrap, alpha: float, corrected: str) -> str:
    """Return why a difference may be noise; `corrected` is its p-value after the correction, in words."""
    if seeds.n < 2:
        return "one seed does not show the noise of training"
    if np.isnan(images.p):
        return "the test images could not be resampled"
    noisy = [f"over {name} is {chance(p)}" for name, p in (("seeds", seeds.p), ("test images", images.p)) if p >= alpha]
    if noisy:
        return f"its p-value {' and that '.join(noisy)}"
    return f"its p-value is {chance(larger_p(seeds, images))}, and {corrected}"


def chance(p: float) -> str:
    """Return a p-value with two digits, or with those that show on which side of `ALPHA` it lies."""
    return next(text for digits in (*range(2, 10), 17) if float(text := f"{p:.{digits}g}") != ALPHA or p == ALPHA)


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation, its two-sided p-value, and the smallest p-value that any order would have had."""

    rho: float
    p: float
    least_p: float


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> RankCorrelation:
    """Return Spearman's rank correlation of pairs, with the p-value of an exact or random permutation test.

    The p-value is the share of orders of the second values whose correlation is at least as strong; of more than 8
    pairs, 10,000 random orders are taken. It is 1 if all first or all second values are equal.
    """
    a, b = (stats.rankdata(values) for values in zip(*pairs))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return RankCorrelation(0.0, 1.0, 1.0)
    observed = float(np.corrcoef(a, b)[0, 1])
    if len(pairs) <= 8:
        orders = np.array(list(itertools.permutations(b)))
    else:
        orders = np.random.default_rng(0).permuted(np.tile(b, (10_000, 1)), axis=1)
    centred = orders - orders.mean(axis=1, keepdims=True)
    strengths = np.abs(centred @ (a - a.mean())) / (np.linalg.norm(centred, axis=1) * np.linalg.norm(a - a.mean()))
    random = len(pairs) > 8  # then the observed order counts as one more

    def share(strength: float) -> float:
        return float((np.count_nonzero(strengths >= strength - 1e-9) + random) / (len(orders) + random))

    return RankCorrelation(observed, share(abs(observed)), share(strengths.max()))
