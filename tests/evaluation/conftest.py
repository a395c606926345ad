"""Small data sets and predictions for the evaluators."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.data.catalog import DatasetCatalog, MetadataCatalog
from sn2fpn.structures import Boxes, BoxMode, Instances, box_of

Prediction = tuple[int, float, list[float]]  # class, score, (x1, y1, x2, y2)


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Register a data set {image id: [(class, box, extra keys)]} until the end of the test, and return its name."""
    names: list[str] = []
    numbers = itertools.count()

    def add(images: dict[Any, list[tuple]], classes: list[str], **metadata: Any) -> str:
        name = f"evaluation_test_{next(numbers)}"
        records = [
            {
                "image_id": image_id,
                "file_name": f"{image_id}.jpg",
                "height": 1000,
                "width": 1000,
                "annotations": [
                    {"category_id": c, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS, **dict(*extra)}
                    for c, box, *extra in objects
                ],
            }
            for image_id, objects in images.items()
        ]
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(thing_classes=classes, **metadata)
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)


@pytest.fixture(scope="session")
def instances() -> Callable[[list[Prediction]], Instances]:
    """Make the predictions of one image in the format of a model."""

    def make(predictions: list[Prediction]) -> Instances:
        classes, scores, boxes = zip(*predictions) if predictions else ((), (), ())
        return Instances(
            (1000, 1000),
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
            scores=torch.tensor(scores, dtype=torch.float32),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
        )

    return make


@pytest.fixture(scope="session")
def run(instances: Callable) -> Callable[..., dict[str, Any]]:
    """Evaluate {image id: predictions}, and return the scores of boxes."""

    def evaluate(evaluator: Any, predictions: dict[Any, list[Prediction]]) -> dict[str, float]:
        evaluator.reset()
        for image_id, found in predictions.items():
            evaluator.process([{"image_id": image_id}], [{"instances": instances(found)}])
        return evaluator.evaluate()["bbox"]

    return evaluate


@pytest.fixture(scope="session")
def evaluation_golden(golden: Path) -> dict[str, Any]:
    """The expected scores, the predictions by VOC's and by COCO's image ids, the classes, and the folder."""
    folder = golden / "detectron2" / "evaluation"
    content = json.loads((folder / "voc" / "predictions.json").read_text())
    by_name = {name: [(int(row[0]), row[1], row[2:]) for row in rows] for name, rows in content["images"].items()}
    return {
        "folder": folder,
        "expected": json.loads((folder / "expected.json").read_text()),
        "voc": by_name,
        "coco": dict(enumerate(by_name.values(), start=1)),
        "classes": content["classes"],
    }


@pytest.fixture(scope="session")
def random_predictions() -> Callable[..., dict[Any, list[Prediction]]]:
    """Draw predictions near the objects of data set dicts and elsewhere, with scores that differ at 3 decimals."""

    def make(records: list[dict[str, Any]], num_classes: int, seed: int) -> dict[Any, list[Prediction]]:
        rng = np.random.default_rng(seed)
        out: dict[Any, list[Prediction]] = {}
        for record in records:
            h, w = record["height"], record["width"]
            rows = []
            for found in record["annotations"]:
                box = box_of(found)
                size = np.tile(box[2:] - box[:2], 2)
                for _ in range(rng.integers(0, 4)):
                    c = found["category_id"] if rng.random() < 0.9 else int(rng.integers(num_classes))
                    rows.append((c, box + rng.normal(0, 0.08, 4) * size))
            for _ in range(rng.integers(0, 6)):
                x, y = rng.uniform(0, w - 2), rng.uniform(0, h - 2)
                box = np.array([x, y, rng.uniform(x + 1, w), rng.uniform(y + 1, h)])
                rows.append((int(rng.integers(num_classes)), box))
            out[record["image_id"]] = rows
        # Each score of a class occurs once, so that the order of equal scores does not matter.
        counts = {c: rng.permutation(999) + 1 for c in range(num_classes)}
        used = dict.fromkeys(range(num_classes), 0)
        for image_id, rows in out.items():
            scored = []
            for c, box in rows:
                scored.append((c, float(counts[c][used[c]]) / 1000, [float(v) for v in box]))
                used[c] += 1
            out[image_id] = scored
        return out

    return make
