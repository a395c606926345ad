"""Tests of VOC's metric: Detectron2's numbers, small examples, and a slow but obvious implementation of the rules."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sn2fpn.data import register_pascal_voc
from sn2fpn.data.catalog import DatasetCatalog
from sn2fpn.errors import UserError
from sn2fpn.evaluation import PascalVOCEvaluator
from sn2fpn.evaluation.resampling import average_precision
from sn2fpn.evaluation.voc import RECALL_POINTS, voc_corners, voc_scores

BOX, OTHER, NOTHING = [10.0, 10.0, 60.0, 60.0], [200.0, 200.0, 260.0, 260.0], [600.0, 600.0, 650.0, 650.0]


@pytest.fixture
def voc_set(tmp_path, evaluation_golden: dict[str, Any]) -> Any:
    names = []
    for year in (2007, 2012):
        names.append(f"golden_voc_{year}")
        register_pascal_voc(names[-1], evaluation_golden["folder"] / "voc", "test", year, evaluation_golden["classes"])
    yield names
    for name in names:
        DatasetCatalog.remove(name)


@pytest.mark.parametrize("year", ["2007", "2012"])
def test_golden(voc_set, evaluation_golden, run, year: str) -> None:
    """The year in the metadata decides the metric. Curves, AP per class and means agree."""
    evaluator = PascalVOCEvaluator(f"golden_voc_{year}")
    scores = run(evaluator, evaluation_golden["voc"])
    expected = evaluation_golden["expected"]["voc"]
    for key, value in expected[year]["bbox"].items():
        assert scores[key] == pytest.approx(value, abs=1e-10)
    judged = evaluator.judge(evaluator._detections)["bbox"]
    for c, name in enumerate(evaluation_golden["classes"]):
        per_class = expected[year]["per_class"][name]
        ranking = judged.rankings[""][c]
        right, counted = ranking.right[0].cumsum(), ranking.counted[0].cumsum()
        assert right / ranking.objects.sum() == pytest.approx(per_class["recall_at_50"], abs=1e-12)
        assert right / np.maximum(counted, 1) == pytest.approx(per_class["precision_at_50"], abs=1e-12)
        at_ious = [per_class[f"0.{percent}"] for percent in range(50, 100, 5)]
        assert judged.average_precision()[c, :, 0] == pytest.approx(at_ious, abs=1e-10)
        assert scores[f"AP50-{name}"] == pytest.approx(at_ious[0], abs=1e-10)
        assert scores[f"AP-{name}"] == pytest.approx(np.mean(at_ious), abs=1e-10)


def test_golden_class_without_detection(voc_set, evaluation_golden, run) -> None:
    found = {name: [p for p in rows if p[0] != 0] for name, rows in evaluation_golden["voc"].items()}
    scores = run(PascalVOCEvaluator("golden_voc_2012"), found)
    for key, value in evaluation_golden["expected"]["voc"]["2012_without_class_0"].items():
        assert scores[key] == pytest.approx(value, abs=1e-10)
    assert scores["AP-cat"] == 0.0


def test_golden_submission_lines(evaluation_golden, instances) -> None:
    lines: dict[int, list[str]] = {c: [] for c in range(4)}
    for image_id, rows in evaluation_golden["voc"].items():
        found = instances(rows)
        corners, scores = voc_corners(found.pred_boxes.tensor.numpy()), voc_scores(found.scores.numpy())
        for c, score, box in zip(found.pred_classes.tolist(), scores, corners):
            lines[c].append(f"{image_id} {score:.3f} " + " ".join(f"{v:.1f}" for v in box))
    expected = evaluation_golden["expected"]["voc"]["detection_lines"]
    assert {name: lines[c] for c, name in enumerate(evaluation_golden["classes"])} == expected


def test_golden_average_precision_table(evaluation_golden) -> None:
    table = evaluation_golden["expected"]["voc"]["voc_ap_table"]
    for points, expected in ((RECALL_POINTS, "use_07_metric_true"), (None, "use_07_metric_false")):
        recall, precision = np.array(table["recall"])[:, None], np.array(table["precision"])[:, None]
        assert average_precision(recall, precision, points) == pytest.approx(table[expected], abs=1e-12)


def test_rounding_is_that_of_printed_numbers() -> None:
    """This includes float32 values that lie exactly between two decimals."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 2000, 4000), np.arange(4000) / 16]).astype(np.float32)
    boxes = values.reshape(-1, 4)
    assert voc_corners(boxes)[:, 2:].tolist() == [[float(f"{v:.1f}") for v in row] for row in boxes[:, 2:]]
    one_based = boxes[:, :2] + np.float32(1)
    assert voc_corners(boxes)[:, :2].tolist() == [[float(f"{v:.1f}") for v in row] for row in one_based]
    scores = np.concatenate([rng.random(4000), np.arange(4000) / 8192]).astype(np.float32)
    assert voc_scores(scores).tolist() == [float(f"{v:.3f}") for v in scores.tolist()]


def test_ap_by_hand(register, run) -> None:
    """The detections are right, a duplicate, wrong and right: precision 1 at recall 1/2, and 1/2 at recall 1."""
    name = register({"a": [(0, BOX), (0, OTHER)]}, ["thing"])
    found = {"a": [(0, 0.9, BOX), (0, 0.8, BOX), (0, 0.7, NOTHING), (0, 0.6, OTHER)]}
    assert run(PascalVOCEvaluator(name), found)["AP"] == pytest.approx(100 * (0.5 * 1 + 0.5 * 0.5))
    eleven = run(PascalVOCEvaluator(name, metric="11-point"), found)["AP"]
    assert eleven == pytest.approx(100 * (6 * 1 + 5 * 0.5) / 11)


def test_overlap_must_exceed_the_threshold(register, run) -> None:
    """Half of a 100 x 100 object is an IoU of exactly 0.5, which is not enough."""
    name = register({"a": [(0, [0.0, 0.0, 100.0, 100.0])]}, ["thing"])
    assert run(PascalVOCEvaluator(name), {"a": [(0, 0.9, [0.0, 0.0, 50.0, 100.0])]})["AP50"] == 0.0
    assert run(PascalVOCEvaluator(name), {"a": [(0, 0.9, [0.0, 0.0, 51.0, 100.0])]})["AP50"] == 100.0


@pytest.mark.parametrize("mark", ["difficult", "iscrowd"])
def test_difficult_and_crowd_objects_count_neither_way(register, run, mark: str) -> None:
    name = register({"a": [(0, BOX), (0, OTHER, {mark: 1})]}, ["thing"])
    assert run(PascalVOCEvaluator(name), {"a": [(0, 0.9, OTHER), (0, 0.8, OTHER), (0, 0.7, BOX)]})["AP"] == 100.0


def test_class_without_objects_is_left_out_of_the_mean(register, run, caplog) -> None:
    """This includes a class whose only object is difficult, and classes with detections."""
    caplog.set_level("INFO")
    name = register({"a": [(0, BOX), (2, OTHER, {"difficult": 1})]}, ["thing", "absent", "hard"])
    for metric in ("11-point", "area"):
        scores = run(PascalVOCEvaluator(name, metric=metric), {"a": [(0, 0.9, BOX), (1, 0.8, OTHER), (2, 0.7, OTHER)]})
        assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx((100.0,) * 3)
        assert math.isnan(scores["AP-absent"]) and math.isnan(scores["AP50-hard"])
    assert "without ground truth" in caplog.text and ": absent, hard" in caplog.text


def test_without_detections_or_objects(register, run) -> None:
    assert run(PascalVOCEvaluator(register({"a": [(0, BOX)]}, ["thing"])), {"a": []})["AP"] == 0.0
    assert math.isnan(run(PascalVOCEvaluator(register({"a": []}, ["thing"])), {"a": [(0, 0.9, BOX)]})["AP"])
    last = {"a": [(0, 0.9, BOX)], "b": [(0, 0.95, BOX)]}  # in an image without objects, after all objects
    assert run(PascalVOCEvaluator(register({"a": [(0, BOX)], "b": []}, ["thing"])), last)["AP50"] == 50.0


def test_coco_formatted_annotations(register, run) -> None:
    """Boxes may be (x, y, w, h), and image ids may be integers."""
    xywh = {"bbox": [10.0, 10.0, 50.0, 50.0], "bbox_mode": 1}
    name = register({1: [(0, BOX, xywh)]}, ["thing"], evaluator_type="coco")
    assert run(PascalVOCEvaluator(name), {1: [(0, 0.9, BOX)]})["AP"] == 100.0


def test_same_numbers_as_the_slow_version(register, run) -> None:
    """Many objects and detections overlap, and detections with equal scores keep the order of the data set."""
    rng = np.random.default_rng(3)

    def boxes(count: int) -> list[list[float]]:
        corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(20, 60, (count, 2))
        return np.concatenate([corner, corner + size], axis=1).round(1).tolist()

    images = {
        i: [(int(rng.integers(2)), b, {"difficult": int(rng.random() < 0.2)}) for b in boxes(6)] for i in range(12)
    }
    found = {i: [(int(rng.integers(2)), round(rng.random(), 1), b) for b in boxes(25)] for i in images}
    name = register(images, ["a", "b"])
    for metric in ("11-point", "area"):
        scores = run(PascalVOCEvaluator(name, metric=metric), found)
        for c, label in enumerate("ab"):
            assert scores[f"AP50-{label}"] == pytest.approx(_slow_ap50(images, found, c, metric == "11-point"))
            assert 0 < scores[f"AP50-{label}"] < 100


def _slow_ap50(images: dict, found: dict, c: int, eleven_points: bool) -> float:
    """Compute AP50 one detection and one recall after the other."""
    rows = [(score, i, box) for i, rows in found.items() for k, score, box in rows if k == c]
    rows.sort(key=lambda row: -row[0])
    taken: set[tuple[int, int]] = set()
    total = sum(1 for objects in images.values() for k, _, e in objects if k == c and not e["difficult"])
    points, true, false = [], 0, 0
    for _, i, box in rows:
        rounded = [round(float(np.float32(v)), 1) for v in box]
        ious = [(_iou(rounded, b), -j) for j, (k, b, _) in enumerate(images[i]) if k == c]
        best, j = max(ious, default=(0.0, 0))
        if best > 0.5 and images[i][-j][2]["difficult"]:
            pass
        elif best > 0.5 and (i, -j) not in taken:
            taken.add((i, -j))
            true += 1
        else:
            false += 1
        points.append((true / total, true / max(true + false, 1)))
    if eleven_points:
        return 100 * sum(max((p for r, p in points if r >= t), default=0.0) for t in np.arange(0, 1.1, 0.1)) / 11
    levels = sorted({r for r, _ in points} | {0.0})
    return 100 * sum((high - low) * max(p for r, p in points if r >= high) for low, high in pairwise(levels))


def _iou(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_unknown_metric_names_the_nearest(register) -> None:
    with pytest.raises(UserError, match=r"^metric: unknown value '11 point'; did you mean '11-point'"):
        PascalVOCEvaluator(register({1: []}, ["thing"]), metric="11 point")
