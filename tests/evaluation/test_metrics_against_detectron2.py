"""Tests with annotated photographs and random predictions: Detectron2's evaluators return the same scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.data import get_dataset_dicts, register_coco_instances, register_pascal_voc
from sn2fpn.data.catalog import DatasetCatalog
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator

pytestmark = pytest.mark.detectron2


@pytest.fixture
def detectron2() -> Any:
    return pytest.importorskip("detectron2", reason="Detectron2 is not installed")


def _theirs(evaluator: Any, predictions: dict[Any, list]) -> dict[str, float]:
    from detectron2.structures import Boxes, Instances

    evaluator.reset()
    for image_id, found in predictions.items():
        classes, scores, boxes = zip(*found) if found else ((), (), ())
        evaluator.process(
            [{"image_id": image_id}],
            [
                {
                    "instances": Instances(
                        (1, 1),
                        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
                        scores=torch.tensor(scores, dtype=torch.float32),
                        pred_classes=torch.tensor(classes, dtype=torch.int64),
                    )
                }
            ],
        )
    return evaluator.evaluate()["bbox"]


@pytest.fixture
def coco_set(shared_data: Path) -> Iterator[tuple[str, Path, Path]]:
    root = shared_data / "coco128" / "coco"
    files = root / "annotations" / "instances_val2017.json", root / "val2017"
    register_coco_instances("oracle_coco", {}, *files)
    yield "oracle_coco", *files
    DatasetCatalog.remove("oracle_coco")


@pytest.mark.parametrize("max_dets", [100, 11, -1])
def test_coco(detectron2, coco_set, run, random_predictions, tmp_path: Path, max_dets: int) -> None:
    """The limits are at least 10, because Detectron2 always adds the limits 1 and 10, and the largest counts.

    No limit (-1) is a large one for Detectron2, as its trainer sets it.
    """
    from detectron2.data import DatasetCatalog as TheirCatalog
    from detectron2.data import MetadataCatalog as TheirMetadata
    from detectron2.data.datasets import register_coco_instances as register_theirs
    from detectron2.evaluation import COCOEvaluator as Theirs

    name, json_file, image_root = coco_set
    records = get_dataset_dicts([name])
    limit = 10**6 if max_dets < 0 else max_dets
    predictions = random_predictions(records, 80, seed=limit)
    register_theirs(name, {}, str(json_file), str(image_root))
    try:
        TheirCatalog.get(name)
        theirs = _theirs(
            Theirs(name, output_dir=str(tmp_path), use_fast_impl=False, max_dets_per_image=limit), predictions
        )
    finally:
        TheirCatalog.remove(name)
        TheirMetadata.remove(name)
    ours = run(COCOEvaluator(name, max_dets_per_image=max_dets), predictions)
    assert {score for score in ours if score not in theirs} == {"AR1", "AR10", "AR", "ARs", "ARm", "ARl"}
    assert {score: ours[score] for score in theirs} == pytest.approx(theirs, abs=1e-9, nan_ok=True)
    assert ours["AP50"] > 10


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc(detectron2, shared_data: Path, run, random_predictions, year: int) -> None:
    """Only classes with objects are compared, because Detectron2's area metric is NaN for the others."""
    from detectron2.data import DatasetCatalog as TheirCatalog
    from detectron2.data import MetadataCatalog as TheirMetadata
    from detectron2.data.datasets import register_pascal_voc as register_theirs
    from detectron2.evaluation import PascalVOCDetectionEvaluator as Theirs

    folder = shared_data / "voc_sample" / "VOC2007"
    classes = ["aeroplane", "bicycle", "bird", "boat", "bottle", "car", "chair", "diningtable", "person", "sofa"]
    name = f"oracle_voc_{year}"
    register_pascal_voc(name, folder, "test", year, classes)
    register_theirs(name, str(folder), "test", year, classes)
    try:
        predictions = random_predictions(get_dataset_dicts([name]), len(classes), seed=year)
        theirs = _theirs(Theirs(name), predictions)
        ours = run(PascalVOCEvaluator(name), predictions)
    finally:
        for catalog in (DatasetCatalog, TheirCatalog, TheirMetadata):
            catalog.remove(name)
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-9)
    assert ours["AP50"] > 10
