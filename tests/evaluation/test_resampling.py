"""Tests of the scores of resampled images against the evaluators' scores, also on copies of the images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.data.catalog import DatasetCatalog
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator
from sn2fpn.evaluation.resampling import draw_images
from sn2fpn.structures import Boxes, Instances

CLASSES = ["cat", "dog", "unseen"]
METRICS = {
    "coco": lambda name, **k: COCOEvaluator(name, **k),
    "voc_11_point": lambda name, **k: PascalVOCEvaluator(name, metric="11-point", **k),
    "voc_area": lambda name, **k: PascalVOCEvaluator(name, metric="area", **k),
}


def _objects(rng: np.random.Generator, images: int) -> dict[int, list[tuple]]:
    """Draw objects of all sizes, some of them crowd regions or difficult; class 2 occurs in no image."""
    out: dict[int, list[tuple]] = {}
    for i in range(images):
        out[i] = []
        for _ in range(rng.integers(0, 5)):
            x, y = rng.uniform(0, 600, 2)
            w, h = np.exp(rng.uniform(np.log(12), np.log(300), 2))
            odd = int(rng.random() < 0.15)
            out[i].append((int(rng.integers(2)), [x, y, x + w, y + h], {"iscrowd": odd, "difficult": odd}))
    return out


def _feed(evaluator: Any, predictions: dict[Any, list], instances: Callable) -> Any:
    evaluator.reset()
    for image_id, found in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances(found)}])
    return evaluator


@pytest.mark.parametrize("metric", METRICS)
def test_any_resampling_scores_as_the_evaluator_scores_the_copies(
    metric: str, register: Callable, random_predictions: Callable, instances: Callable
) -> None:
    """A data set in which image i and its predictions are copied w_i times must have the same scores."""
    rng = np.random.default_rng(5)
    objects = _objects(rng, 14)
    name = register(objects, CLASSES)
    predictions = random_predictions(DatasetCatalog.get(name), 3, seed=1)
    evaluator = _feed(METRICS[metric](name), predictions, instances)
    judged = evaluator.judge(evaluator._detections)["bbox"]

    own = evaluator.evaluate()["bbox"]
    measured = {k: float(v[0]) for k, v in judged.scores().items()}
    assert measured == pytest.approx({k: own[k] for k in measured}, abs=1e-11, nan_ok=True)
    assert own["AP"] > 10 and measured.keys() >= {"AP", "AP50", "AP75", "AP-cat"}

    weights = draw_images(14, 3, seed=2)
    assert (weights.sum(axis=1) == 14).all() and (weights == 0).any() and weights.max() > 1
    scores = judged.scores(weights)
    for b, row in enumerate(weights):
        copies = [(i, 100 * i + c) for i, count in enumerate(row) for c in range(count)]
        copied = register({new: objects[i] for i, new in copies}, CLASSES)
        of_copies = {new: predictions[i] for i, new in copies}
        expected = _feed(METRICS[metric](copied), of_copies, instances).evaluate()["bbox"]
        found = {k: float(v[b]) for k, v in scores.items()}
        assert found == pytest.approx({k: expected[k] for k in found}, abs=1e-9, nan_ok=True)
    some = judged.scores(weights, ["AP75", "AP-dog"])
    assert list(some) == ["AP75", "AP-dog"] and np.array_equal(some["AP-dog"], scores["AP-dog"])


def test_masks(register: Callable) -> None:
    rng = np.random.default_rng(3)
    objects: dict[int, list[tuple]] = {}
    found: dict[int, Instances] = {}
    for i in range(6):
        objects[i], masks, boxes = [], torch.zeros(4, 1000, 1000, dtype=torch.bool), []
        for n in range(4):
            x, y = rng.integers(0, 800, 2).tolist()
            w, h = rng.integers(10, 150, 2).tolist()
            ring = [x, y, x + w, y, x + w, y + h, x, y + h]
            objects[i].append((n % 2, [x, y, x + w, y + h], {"segmentation": [ring]}))
            masks[n, y : y + h, x : x + int(w * rng.uniform(0.6, 1))] = True
            boxes.append([x, y, x + w, y + h])
        found[i] = Instances(
            (1000, 1000),
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)),
            scores=torch.from_numpy(rng.random(4).astype(np.float32)),
            pred_classes=torch.tensor([0, 1, 0, 1]),
            pred_masks=masks,
        )
    evaluator = COCOEvaluator(register(objects, CLASSES[:2]))
    evaluator.process([{"image_id": i} for i in found], [{"instances": x} for x in found.values()])
    own = evaluator.evaluate()
    for task, judged in evaluator.judge(evaluator._detections).items():
        measured = {k: float(v[0]) for k, v in judged.scores().items()}
        assert measured == pytest.approx({k: own[task][k] for k in measured}, abs=1e-11, nan_ok=True)
    assert own["segm"]["AP"] < own["bbox"]["AP"]


@pytest.mark.parametrize("metric", METRICS)
def test_detections_written_and_read_again_score_the_same(
    metric: str, register: Callable, random_predictions: Callable, instances: Callable, tmp_path: Path
) -> None:
    name = register(
        _objects(np.random.default_rng(6), 10), CLASSES, thing_dataset_id_to_contiguous_id={7: 0, 3: 1, 5: 2}
    )
    predictions = random_predictions(DatasetCatalog.get(name), 3, seed=4)
    evaluator = _feed(METRICS[metric](name, output_dir=tmp_path), predictions, instances)
    own = evaluator.evaluate()["bbox"]
    read = evaluator.read_detections(tmp_path / "coco_instances_results.json")
    assert len(read) == 10
    measured = {k: float(v[0]) for k, v in evaluator.judge(read)["bbox"].scores().items()}
    assert measured == pytest.approx({k: own[k] for k in measured}, abs=1e-11, nan_ok=True)


def test_without_detections_what_is_judged_is_zero(register: Callable, instances: Callable, tmp_path: Path) -> None:
    """Detectron2's COCO metric, and so that of `evaluate`, has no number there."""
    square = {"segmentation": [[0.0, 0.0, 50.0, 0.0, 50.0, 50.0, 0.0, 50.0]]}
    name = register({0: [(0, [0, 0, 50, 50], square)], 1: []}, CLASSES)
    for metric, expected, tasks in (("coco", np.nan, ["bbox", "segm"]), ("voc_area", 0.0, ["bbox"])):
        evaluator = _feed(METRICS[metric](name, output_dir=tmp_path), {0: [], 1: []}, instances)
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(expected, nan_ok=True)
        judged = evaluator.judge(evaluator.read_detections(tmp_path / "coco_instances_results.json"))
        assert list(judged) == tasks
        for task in tasks:
            scores = judged[task].scores(np.array([[1, 1], [2, 0], [0, 2]]))  # the last sample has no object
            assert np.array_equal(scores["AP"], [0, 0, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "results.json: file of predictions does not exist"),
        ("{", "expected a list of COCO results"),
        (json.dumps([{"image_id": 9, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 1}]), "has no image 9"),
        (json.dumps([{"image_id": 0, "category_id": 8, "bbox": [0, 0, 1, 1], "score": 1}]), "has no category 8"),
        (
            json.dumps([{"image_id": 0, "category_id": 0, "bbox": [0, 0, 1], "score": 1}]),
            "expected a list of COCO results",
        ),
    ],
)
def test_unusable_predictions(content: str | None, words: str, register: Callable, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        COCOEvaluator(register({0: []}, CLASSES)).read_detections(path)
