"""Intervals, bootstraps and verdicts, compared with tables, closed formulas and cases whose answer is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sn2fpn.data.catalog import DatasetCatalog, MetadataCatalog
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator
from sn2fpn.evaluation.detections import ImageDetections
from sn2fpn.structures import BoxMode
from sn2fpn.study.measure.statistics import (
    Bootstrap,
    Interval,
    chance,
    compare_resampled,
    distinguishable,
    holm,
    mean_interval,
    paired_difference,
    rank_correlation,
    resample,
)
from sn2fpn.study.report.comparison import limits

NAN = float("nan")


def test_student_intervals_are_those_of_the_tables() -> None:
    """The quantile t(0.975) is 4.303 with 2 degrees of freedom and 12.706 with 1."""
    i = mean_interval([1, 2, 3])
    assert (i.mean, i.n) == (2, 3) and i.high - 2 == pytest.approx(4.303 / 3**0.5, abs=1e-3) == 2 - i.low
    i = mean_interval([3, None, NAN, 5])
    assert (i.mean, i.n) == (4, 2) and i.high - 4 == pytest.approx(12.706, abs=1e-3)
    assert mean_interval([1, 2, 3], 0.9).high == pytest.approx(2 + 2.920 / 3**0.5, abs=1e-3)
    one, none = mean_interval([7.5]), mean_interval([])
    assert (one.mean, one.n) == (7.5, 1) and np.isnan([one.low, one.high]).all() and np.isnan(none.mean)


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(10, 3, 3).tolist()) for _ in range(2000)]
    assert np.mean([i.low <= 10 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.015)


def test_pairs_take_the_noise_that_both_share_out() -> None:
    a, b = [41.0, 30.0, 52.0], [40.0, 29.1, 50.9]
    d = paired_difference(a, b)
    assert d.mean == pytest.approx(1) and d.high - d.mean == pytest.approx(4.303 * 0.1 / 3**0.5, abs=1e-3)
    t = 1 / (0.1 / 3**0.5)
    assert d.p == pytest.approx(1 - t / (2 + t**2) ** 0.5)  # Student's distribution with 2 degrees, in closed form
    assert paired_difference(b, a).mean == -d.mean and mean_interval(a).high - mean_interval(a).mean > 20
    assert paired_difference([1, None, 4, 5], [1, 2, NAN, 5]) == Interval(0, 0, 0, 2, 1.0)
    assert paired_difference([2, 3], [1, 2]).p == 0.5  # two equal differences say no more than their signs
    assert paired_difference([2, 3, 4], [1, 2, 3]).p == 0.25 and np.isnan(paired_difference([2], [1]).p)


def test_differences_that_rounding_alone_tells_apart_have_the_sign_test() -> None:
    assert 0.3 - 0.1 != 0.5 - 0.3
    found = paired_difference([0.3, 0.5], [0.1, 0.3])
    assert found.p == 0.5 and found.low == found.mean == found.high == pytest.approx(0.2)
    assert paired_difference([45.3, 41.1, 44.7], [44.1, 39.9, 43.5]).p == 0.25
    assert 0.1 + 0.2 != 0.3 and paired_difference([0.1 + 0.2, 4], [0.3, 4]) == Interval(0, 0, 0, 2, 1.0)
    assert paired_difference([2e-6, 3e-6], [0, 0]).p == pytest.approx(stats.ttest_1samp([2, 3], 0).pvalue)


def test_intervals_and_p_values_follow_from_the_formulas() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 3, 5, 10):
        a, b = rng.normal(40, 2, n), rng.normal(39, 2, n)
        found, d = paired_difference(a.tolist(), b.tolist()), a - b
        half = stats.t.ppf(0.975, n - 1) * d.std(ddof=1) / n**0.5
        assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half), rel=1e-12)
        assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-12)


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []
    with_unknown = holm([0.01, NAN, 0.02])
    assert with_unknown[::2] == pytest.approx([0.03, 0.04]) and np.isnan(with_unknown[1])


# ---------------------------------------------------------------- the bootstrap


def bootstrap_difference(truth: COCOEvaluator, a: Any, b: Any, metric: str, resamples: int, seed: int = 0) -> Bootstrap:
    return compare_resampled(*(resample(truth, found, [metric], resamples, seed)[metric] for found in (a, b)))


@pytest.fixture
def truth() -> Iterator[COCOEvaluator]:
    """Return the evaluator of 400 images that have one object of class 0 and one of class 1 each."""
    records = [
        {
            "image_id": i,
            "file_name": f"{i}.jpg",
            "height": 100,
            "width": 100,
            "annotations": [
                {"category_id": c, "bbox": [50 * c, 0, 50 * c + 40, 40], "bbox_mode": BoxMode.XYXY_ABS} for c in (0, 1)
            ],
        }
        for i in range(400)
    ]
    DatasetCatalog.register("bootstrap_test", lambda: records)
    MetadataCatalog.get("bootstrap_test").set(thing_classes=["left", "right"])
    yield COCOEvaluator("bootstrap_test")
    DatasetCatalog.remove("bootstrap_test")


def _found(hits: np.ndarray) -> list[ImageDetections]:
    """Return detections with the exact boxes of the objects that are hit, (400, 2) bool, and no others."""
    out = []
    for i, classes in enumerate(map(np.flatnonzero, hits)):
        boxes = np.array([[50 * c, 0, 50 * c + 40, 40] for c in classes], np.float32).reshape(-1, 4)
        scores = np.linspace(0.3, 0.9, 400, dtype=np.float32)[np.full(len(classes), i)]
        out.append(ImageDetections(i, boxes, scores, classes))
    return out


def test_equal_predictions_differ_by_exactly_nothing(truth: COCOEvaluator) -> None:
    found = _found(np.random.default_rng(0).random((400, 2)) < 0.6)
    assert bootstrap_difference(truth, [found, found], [found, found], "bbox/AP", 50) == Bootstrap(0, 0, 0, 1)


def test_the_interval_is_that_of_the_formula(truth: COCOEvaluator) -> None:
    """If all detections are right, AP is the recall, up to the grid of 1 %.

    The difference in recall is a mean of independent paired differences of images, whose normal interval is known.
    """
    rng = np.random.default_rng(1)
    a, b = rng.random((400, 2)) < 0.7, rng.random((400, 2)) < 0.6
    b[:200] = a[:200]  # both are alike on half of the images
    per_image = 100 * (a.astype(float) - b).mean(axis=1)
    half = 1.96 * per_image.std() / 20
    found = bootstrap_difference(truth, [_found(a)], [_found(b)], "bbox/AP50", 1000)
    assert found.difference == pytest.approx(per_image.mean(), abs=1)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.12)
    assert (found.high + found.low) / 2 == pytest.approx(per_image.mean(), abs=1)
    again = bootstrap_difference(truth, [_found(a)], [_found(b)], "bbox/AP50", 1000)
    assert again == found != bootstrap_difference(truth, [_found(a)], [_found(b)], "bbox/AP50", 1000, seed=1)


def test_without_a_classs_boxes(truth: COCOEvaluator) -> None:
    """Without its boxes, class 1 loses its AP on any images, which halves the mean AP. Seeds are averaged."""
    hits = np.ones((400, 2), bool)
    a, b = _found(hits), _found(hits & [True, False])
    of_a = resample(truth, [a, a], ["bbox/AP", "bbox/AP-left", "bbox/AP-right"], 100)
    of_b = resample(truth, [b, a], list(of_a), 100)
    differences = {metric: compare_resampled(of_b[metric], of_a[metric]) for metric in of_a}
    assert differences["bbox/AP"] == Bootstrap(*[pytest.approx(-25)] * 3, pytest.approx(2 / 101))
    assert differences["bbox/AP-right"].low == pytest.approx(-50) and differences["bbox/AP-left"].p == 1


def test_resampling_stays_quick() -> None:
    """1000 resamples of 6 metrics take seconds for 200 images, 6 classes, 3 seeds and 2 variants."""
    rng = np.random.default_rng(0)
    records, found = [], [[] for _ in range(6)]
    for i in range(200):
        classes, corners = rng.integers(0, 6, 5), rng.uniform(0, 200, (5, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 100, (5, 2))], 1)
        records.append(
            {
                "image_id": i,
                "file_name": "",
                "height": 300,
                "width": 300,
                "annotations": [
                    {"category_id": int(c), "bbox": b.tolist(), "bbox_mode": BoxMode.XYXY_ABS}
                    for c, b in zip(classes, boxes)
                ],
            }
        )
        for cell in found:
            noisy = np.repeat(boxes, 4, 0) + rng.normal(0, 8, (20, 4))
            cell.append(
                ImageDetections(i, noisy.astype(np.float32), rng.random(20).astype(np.float32), np.repeat(classes, 4))
            )
    DatasetCatalog.register("quick_bootstrap", lambda: records)
    MetadataCatalog.get("quick_bootstrap").set(thing_classes=list("abcdef"))
    try:
        evaluator, started = COCOEvaluator("quick_bootstrap"), time.process_time()
        metrics = [f"bbox/{m}" for m in ("AP", "AP50", "AP75", "APs", "APm", "APl")]
        a, b = (resample(evaluator, cells, metrics) for cells in (found[:3], found[3:]))
        used = time.process_time() - started
        assert used < 30, used
        assert a["bbox/APs"].shape == (1001,) and abs(compare_resampled(a["bbox/AP"], b["bbox/AP"]).difference) < 10
    finally:
        DatasetCatalog.remove("quick_bootstrap")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("segm/AP", "metric of 'segm': the predictions only have bbox"),
        ("bbox/APx", "unknown metric bbox.APx; did you mean 'AP'"),
    ],
)
def test_metrics_that_are_not_there(metric: str, words: str, truth: COCOEvaluator) -> None:
    found = _found(np.ones((400, 2), bool))
    with pytest.raises(UserError, match=words):
        resample(truth, [found], [metric], 5)
    with pytest.raises(UserError, match="at least one seed"):
        resample(truth, [], ["bbox/AP"])


# ---------------------------------------------------------------- verdicts


def test_a_difference_must_survive_both_kinds_of_noise() -> None:
    def case(p_seeds: float, p_images: float, n: int = 3) -> tuple[Interval, Bootstrap]:
        return Interval(1.234, 0.2, 2.2, n, p_seeds), Bootstrap(1.234, 0.1, 2.3, p_images)

    verdicts = distinguishable(
        {
            "sure": case(0.001, 0.004),
            "seeds": case(0.2, 0.004),
            "images": case(0.001, 0.3),
            "both": case(0.3, 0.3),
            "barely": case(0.04, 0.004),
            "single": case(NAN, 0.004, n=1),
            "unseen": (case(0.001, 1)[0], Bootstrap()),
        },
        "fpn",
    )
    assert [v for v, verdict in verdicts.items() if verdict.distinguishable] == ["sure"]
    assert verdicts["sure"].p == pytest.approx(7 * 0.004)
    assert verdicts["sure"].text == (
        "sure has 1.23 points of AP more than fpn, which is more than the noise of seeds and test images (p = 0.028 "
        "after Holm's correction for 7 comparisons)."
    )
    for variant, words in {
        "seeds": "which may be noise, because its p-value over seeds is 0.2.",
        "images": "its p-value over test images is 0.3.",
        "both": "its p-value over seeds is 0.3 and that over test images is 0.3.",
        "barely": "its p-value is 0.04, and 0.24 after Holm's correction for 7 comparisons.",
        "single": "one seed does not show the noise of training.",
        "unseen": "because the test images could not be resampled.",
    }.items():
        assert words in verdicts[variant].text
    alone = distinguishable({"sni": case(0.04, 0.004)}, "fpn", "mask AP")["sni"]
    assert alone.distinguishable and alone.text.endswith("test images (p = 0.04).") and "mask AP" in alone.text


def test_p_values_show_on_which_side_of_the_level_they_are() -> None:
    assert [chance(p) for p in (0.0499, 0.0501, 0.05, 0.049996, 0.3, 0.00123)] == [
        "0.0499",
        "0.0501",
        "0.05",
        "0.049996",
        "0.3",
        "0.0012",
    ]
    small = distinguishable({"sni": (Interval(0.003, 0.001, 0.005, 5, 1e-4), Bootstrap(0.003, 0.001, 1, 1e-3))}, "fpn")
    assert small["sni"].text.startswith("sni has 0.003 points of AP more than fpn, which is more than the noise")
    same = distinguishable({"sni": (Interval(0.0, 0.0, 0.0, 2, 1.0), Bootstrap(0.0, 0.0, 0.0, 1.0))}, "fpn")["sni"]
    assert same.text == "sni has the same AP as fpn." and not same.distinguishable
    assert limits(Bootstrap(0.003, 0.003, 1.2, 0.01)) == "0.003 … 1.200"
    assert limits(Bootstrap(1.0, 0.0, 2.0, 0.01)) == "0.0 … 2.0"
    assert limits(Bootstrap(1.0, 0.04, 2.0, 0.01)) == "0.04 … 2.00"


def test_rank_correlation() -> None:
    rising = [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0), (5.0, 50.0)]
    assert rank_correlation(rising) == pytest.approx((1.0, 2 / 120, 2 / 120))
    assert rank_correlation([(a, -b) for a, b in rising])[0] == pytest.approx(-1)
    assert rank_correlation([(1.0, b) for _, b in rising]) == (0.0, 1.0, 1.0)
    tied = [(0.7, 21.0), (0.6, 20.0), (0.0, 15.0), (0.0, 16.0)]
    assert rank_correlation(tied).p == rank_correlation(tied).least_p == pytest.approx(4 / 24)
    many = [(float(i), float(i)) for i in range(12)]
    assert rank_correlation(many)[1] < 0.001
