"""What the numbers of a study say: means over seeds, differences, and which of these are more than noise.

Two kinds of noise are kept apart. Training again with another seed gives another detector: Student's t over seeds.
Other test images give other scores: a bootstrap over images, paired, so that all variants see the same resampled ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from ..errors import UserError, did_you_mean
from ..evaluation import draw_images

if TYPE_CHECKING:
    from ..evaluation.detections import DetectionEvaluator, ImageDetections

__all__ = [
    "Bootstrap",
    "Difference",
    "Interval",
    "Verdict",
    "bootstrap_difference",
    "compare_resampled",
    "distinguishable",
    "holm",
    "mean_interval",
    "paired_difference",
    "resample",
]

ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its confidence interval; NaN where there is none (one seed, or no value)."""

    mean: float
    low: float
    high: float
    n: int  # values with a number


@dataclass(frozen=True)
class Difference(Interval):
    """A mean of paired differences; p is of the paired t-test, NaN with fewer than two pairs."""

    p: float


@dataclass(frozen=True)
class Bootstrap:
    """A difference of scores, the percentile interval of its resampled values, and the two-sided p-value of none."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Verdict:
    """Whether a difference to the baseline is more than noise, and why, as a sentence."""

    distinguishable: bool
    p: float  # Holm-adjusted; NaN when it cannot be told
    text: str


def mean_interval(values: Sequence[float | None], confidence: float = 0.95) -> Interval:
    """Mean and Student-t interval of a score over seeds; None and NaN (no ground truth) are left out."""
    found = np.array([v for v in values if v is not None and not np.isnan(v)], dtype=np.float64)
    n = len(found)
    mean = float(found.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * found.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a: Sequence[float | None], b: Sequence[float | None], confidence: float = 0.95) -> Difference:
    """The mean of a - b, seed by seed; pairs without a number on either side are left out.

    Raises:
        ValueError: not the same number of values.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    differences = [x - y for x, y in pairs]
    interval = mean_interval(differences, confidence)
    if interval.n < 2:
        p = float("nan")
    elif interval.high == interval.low:  # no spread: the test's statistic is 0 / 0 or infinite
        p = 1.0 if interval.mean == 0 else 0.0
    else:
        p = float(stats.ttest_1samp([d for d in differences if not np.isnan(d)], 0).pvalue)
    return Difference(interval.mean, interval.low, interval.high, interval.n, p)


def resample(
    truth: DetectionEvaluator,
    predictions: Sequence[list[ImageDetections]],
    metrics: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """A variant's scores, mean over its seeds: as measured, and on resampled images.

    The draws depend on `resamples`, `seed` and the data set alone: those of all variants are paired.

    Args:
        truth: the evaluator of the test set (`build_evaluator`).
        predictions: per seed, the detections (`truth.read_detections`).
        metrics: "bbox/AP", "segm/APs", "bbox/AP-<class>", …

    Returns:
        Per metric (1 + resamples,): the score as measured comes first.

    Raises:
        UserError: a metric that the evaluator does not have, or no predictions.
    """
    if not predictions:
        raise UserError("a bootstrap needs the predictions of at least one seed, found none")
    sums: dict[str, np.ndarray] = {}
    for of_seed in predictions:
        judged = truth.judge(of_seed)
        weights = None
        for task in dict.fromkeys(m.partition("/")[0] for m in metrics):
            if task not in judged:
                raise UserError(f"metric of {task!r}: the predictions have {' and '.join(judged)} only")
            if weights is None:
                images = judged[task].num_images
                weights = np.concatenate([np.ones((1, images)), draw_images(images, resamples, seed)])
            wanted = [m.partition("/")[2] for m in metrics if m.startswith(f"{task}/")]
            known = judged[task].metric_names()
            if unknown := [name for name in wanted if name not in known]:
                raise UserError(f"unknown metric {task}/{unknown[0]}{did_you_mean(unknown[0], known)}")
            for name, values in judged[task].scores(weights, wanted).items():
                sums[f"{task}/{name}"] = sums.get(f"{task}/{name}", 0) + values / len(predictions)
    return sums


def compare_resampled(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Bootstrap:
    """The difference a - b of one metric from what `resample` gave for two variants.

    The interval holds the middle `confidence` of the B resampled differences. p is twice the share of them on the
    other side of zero, with one more counted there (Davison and Hinkley, 1997, section 4.2): at least 2 / (B + 1).
    """
    difference, *_ = observed = a - b
    resampled = observed[1:][~np.isnan(observed[1:])]
    if np.isnan(difference) or not len(resampled):
        return Bootstrap(float(difference), *(float("nan"),) * 3)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    return Bootstrap(float(difference), float(low), float(high), min(1.0, 2 * (tail + 1) / (len(resampled) + 1)))


def bootstrap_difference(
    truth: DetectionEvaluator,
    predictions_a: Sequence[list[ImageDetections]],
    predictions_b: Sequence[list[ImageDetections]],
    metric: str,
    resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """The difference a - b of a metric and how far other test images could move it.

    For several metrics or variants, `resample` each variant once and `compare_resampled`.
    """
    a, b = (resample(truth, p, [metric], resamples, seed)[metric] for p in (predictions_a, predictions_b))
    return compare_resampled(a, b)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for that many comparisons (Holm, 1979); NaN stay NaN, but count as comparisons."""
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p)):  # NaN last
        if not np.isnan(p[i]):
            out[i] = highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
    return out.tolist()


def distinguishable(
    comparisons: Mapping[str, tuple[Difference, Bootstrap | None]],
    baseline: str,
    metric: str = "AP",
    alpha: float = ALPHA,
) -> dict[str, Verdict]:
    """Which variants differ from the baseline by more than noise, and a sentence for each.

    A difference counts when it survives both kinds of noise: the larger of the p-values over seeds and over images
    is below `alpha`, after Holm's correction for the number of variants compared.

    Args:
        comparisons: by variant, the difference to the baseline over seeds, and over resampled images (None: there
            are no predictions to resample).
        baseline, metric: how they are called in the sentences.
    """
    worst = [
        max(d.p, b.p) if b is not None and not np.isnan(d.p + b.p) else float("nan") for d, b in comparisons.values()
    ]
    out = {}
    for (variant, (seeds, images)), p in zip(comparisons.items(), holm(worst)):
        what = f"{variant} - {baseline}: {seeds.mean:+.2f} {metric}"
        corrected = f" (p = {p:.2g}, corrected for {len(worst)} comparisons)" if len(worst) > 1 else f" (p = {p:.2g})"
        if np.isnan(seeds.mean):
            reason = "no value on one of the two sides"
        elif seeds.n < 2:
            reason = "one seed says nothing about the noise of training"
        elif images is None or np.isnan(images.p):
            reason = "no stored predictions to resample test images from"
        elif p < alpha:
            out[variant] = Verdict(True, p, f"{what} is more than the noise of seeds and test images{corrected}")
            continue
        else:
            noisy = [name for name, own in (("seeds", seeds.p), ("test images", images.p)) if own >= alpha]
            reason = f"within the noise of {' and of '.join(noisy)}" if noisy else "not after the correction"
            reason += corrected
        out[variant] = Verdict(False, p, f"{what} is not distinguishable from noise: {reason}")
    return out
