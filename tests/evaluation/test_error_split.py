"""Tests of the kinds of errors: constructed images in which each kind and its cost are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sn2fpn.data import DatasetCatalog, MetadataCatalog
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator
from sn2fpn.evaluation.detections import ImageDetections
from sn2fpn.evaluation.error_split import KINDS, ErrorSplit, judge_image, split_errors
from sn2fpn.structures import BoxMode

CUP, BOOK = 0, 1
A, B = [10.0, 10.0, 50.0, 50.0], [100.0, 100.0, 140.0, 140.0]  # two objects that do not touch
NEAR_A = [10.0, 10.0, 50.0, 26.0]  # IoU 0.4 with A
AWAY = [200.0, 10.0, 230.0, 30.0]


def record(*objects: tuple[list[float], int], crowd: list[float] | None = None, image_id: int = 1) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c, "iscrowd": 0} for box, c in objects
    ]
    if crowd:
        annotations.append({"bbox": crowd, "bbox_mode": BoxMode.XYXY_ABS, "category_id": CUP, "iscrowd": 1})
    return {"image_id": image_id, "height": 200, "width": 300, "file_name": "x.jpg", "annotations": annotations}


def split_of(records: list[dict[str, Any]], detections: list[ImageDetections], num_classes: int) -> ErrorSplit:
    return split_errors([judge_image(r, d) for r, d in zip(records, detections, strict=True)], num_classes)


def found(*detections: tuple[list[float], int, float], image_id: int = 1) -> ImageDetections:
    boxes, classes, scores = zip(*detections) if detections else ((), (), ())
    return ImageDetections(
        image_id, np.reshape(np.float32(boxes), (-1, 4)), np.float32(scores), np.array(classes, np.int64)
    )


@pytest.mark.parametrize(
    ("detection", "kind", "missed"),
    [
        ((A, CUP, 0.9), None, False),
        ((A, BOOK, 0.9), "classification", False),
        ((NEAR_A, CUP, 0.9), "localisation", False),
        ((NEAR_A, BOOK, 0.9), "both", True),
        ((AWAY, CUP, 0.9), "background", True),
    ],
)
def test_the_kind_of_one_detection(detection: Any, kind: str | None, missed: bool) -> None:
    split = split_of([record((A, CUP))], [found(detection)], 2)
    assert split.count == {k: int(k == kind) for k in KINDS} | {"missed": int(missed)}
    assert split.ap50 == pytest.approx(0 if kind else 100)
    # Correcting the only error finds the object; leaving out a false positive finds nothing. If no cup is detected at
    # all, the missed cup is all that is wrong.
    right = {"classification": 1, "localisation": 1} if kind != "both" else {"missed": 1}
    gained = {k: 100.0 * (k in right and (k == kind or k == "missed")) for k in KINDS}
    assert split.lost == pytest.approx(gained)


def test_a_duplicate_is_the_one_with_the_lower_score() -> None:
    j = judge_image(record((A, CUP)), found((A, CUP, 0.6), (A, CUP, 0.9)))
    assert j.order.tolist() == [1, 0] and j.is_right.tolist() == [True, False]
    assert KINDS[j.kind[1]] == "duplicate" and not j.missed.any()
    # The duplicate stands before the second object's detection, so it halves the precision there.
    split = split_of([record((A, CUP), (B, CUP))], [found((A, CUP, 0.9), (A, CUP, 0.8), (B, CUP, 0.7))], 1)
    before = 100 * (51 + 50 * 2 / 3) / 101  # precision 1 up to a recall of 0.5, then 2/3
    assert split.ap50 == pytest.approx(before) and split.lost["duplicate"] == pytest.approx(100 - before)
    assert all(split.lost[kind] == 0 for kind in KINDS if kind != "duplicate")
    np.testing.assert_allclose(split.precision, [100.0] * 51 + [200 / 3] * 50)


def test_missed_objects_cost_their_share_of_recall() -> None:
    split = split_of([record((A, CUP), (B, CUP))], [found((A, CUP, 0.9))], 1)
    assert split.count["missed"] == 1
    assert split.ap50 == pytest.approx(100 * 51 / 101) and split.lost["missed"] == pytest.approx(100 - 100 * 51 / 101)
    assert split.found == 50 and split.lost_to["false negatives"] == pytest.approx(split.lost["missed"])


def test_all_false_positives_and_negatives() -> None:
    """B is covered too loosely, so it is not missed, but no right detection has found it."""
    near_b = [100.0, 100.0, 140.0, 116.0]
    split = split_of([record((A, CUP), (B, CUP))], [found((AWAY, CUP, 0.9), (near_b, CUP, 0.8), (A, CUP, 0.7))], 1)
    assert split.count["missed"] == 0 and split.found == 50
    before = 100 * 51 / 3 / 101  # a precision of 1/3 up to a recall of 0.5
    assert split.ap50 == pytest.approx(before)
    assert split.lost_to["false positives"] == pytest.approx(100 * 51 / 101 - before)
    assert split.lost_to["false negatives"] == pytest.approx(100 / 3 - before)


def test_a_corrected_error_does_not_find_an_object_twice() -> None:
    split = split_of([record((A, CUP))], [found((A, CUP, 0.9), (NEAR_A, CUP, 0.95))], 1)
    assert split.count["localisation"] == 1 and split.ap50 == pytest.approx(50)
    assert split.lost["localisation"] == pytest.approx(50)


def test_detections_of_crowds_do_not_count() -> None:
    split = split_of([record((A, CUP), crowd=AWAY)], [found((AWAY, CUP, 0.95), (A, CUP, 0.9))], 1)
    assert split.ap50 == pytest.approx(100) and sum(split.count.values()) == 0


def test_difficult_objects_do_not_count_with_vocs_metric(register: Callable) -> None:
    """B is difficult: its detections are neither right nor wrong, whatever their number, if they cover half of it."""
    image = record((A, CUP), (B, CUP), image_id=1)
    image["annotations"][1]["difficult"] = 1
    near_b = [100.0, 100.0, 140.0, 116.0]
    detections = found((B, CUP, 0.95), (B, CUP, 0.93), (A, CUP, 0.9), (B, BOOK, 0.8), (near_b, CUP, 0.7), image_id=1)
    counts = PascalVOCEvaluator(register({1: []}, ["cup", "book"])).counts
    judged = judge_image(image, detections, counts)
    assert judged.kind.tolist() == [-2, -2, -1, *[KINDS.index("background")] * 2]
    assert judged.objects.tolist() == [0] and not judged.missed.any()
    assert split_errors([judged], 2).ap50 == pytest.approx(100)
    with_b = judge_image(image, detections)
    assert with_b.objects.tolist() == [0, 1] and with_b.is_right.tolist() == [True, False, True, False, False]


def test_no_detections_and_no_objects() -> None:
    nothing = split_of([record((A, CUP), (B, BOOK)), record()], [found(), found()], 3)
    assert nothing.ap50 == 0 and nothing.count == dict.fromkeys(KINDS, 0) | {"missed": 2}
    assert nothing.lost == dict.fromkeys(KINDS, 0.0) | {"missed": 100.0}
    half = split_of([record((A, CUP), (B, BOOK))], [found((A, CUP, 0.9))], 2)
    assert half.ap50 == pytest.approx(50) and half.lost["missed"] == pytest.approx(50)
    assert np.isnan(split_of([record()], [found((A, CUP, 0.5))], 2).ap50)


def test_ap50_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    records, detections = [], []
    for i in range(1, 21):
        corners = rng.uniform(0, 150, (4, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(20, 60, (4, 2))], axis=1)
        objects = [(box.tolist(), int(rng.integers(2))) for box in boxes]
        moved = [(np.add(box, rng.normal(0, 6, 4)).tolist(), c if rng.random() < 0.8 else 1 - c) for box, c in objects]
        records.append(record(*objects, image_id=i))
        detections.append(found(*[(box, c, float(rng.uniform(0.1, 1))) for box, c in moved], image_id=i))
    DatasetCatalog.register("error_split_random", lambda: records)
    MetadataCatalog.get("error_split_random").set(thing_classes=["cup", "book"], evaluator_type="coco")
    try:
        expected = COCOEvaluator("error_split_random").judge(detections)["bbox"].scores()["AP50"][0]
    finally:
        DatasetCatalog.remove("error_split_random")
    split = split_of(records, detections, 2)
    assert split.ap50 == pytest.approx(expected, abs=1e-4)
    assert all(gain >= -1e-9 for gain in split.lost.values())
