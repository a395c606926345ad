"""Tests of the picture at the end of a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sn2fpn.config import get_cfg
from sn2fpn.data import register_coco_instances
from sn2fpn.data.catalog import DatasetCatalog, MetadataCatalog
from sn2fpn.errors import UserError
from sn2fpn.evaluation.predictions import draw_predictions
from sn2fpn.structures import Boxes, BoxMode, Instances
from sn2fpn.visualization import class_color, grid


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    name = "draw_predictions_test"
    for i in range(1, 6):
        Image.fromarray(np.full((60, 80, 3), 127, np.uint8)).save(tmp_path / f"{i}.png")
    annotations = [
        {"id": i, "image_id": i, "category_id": 5, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}
        for i in (2, 3, 4)
    ]
    (tmp_path / "set.json").write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in range(1, 6)],
                "categories": [{"id": 5, "name": "thing"}, {"id": 9, "name": "other"}],
                "annotations": annotations,
            }
        )
    )
    register_coco_instances(name, {}, tmp_path / "set.json", tmp_path)
    yield name
    DatasetCatalog.remove(name)


class _Model(nn.Module):
    def __init__(self, score: float = 0.8, found: int = 1) -> None:
        super().__init__()
        self.score, self.found = score, found
        self.seen: list[int] = []

    def forward(self, batch: list[dict]) -> list[dict]:
        assert not self.training and not torch.is_grad_enabled()
        self.seen += [image["image_id"] for image in batch]
        return [
            {
                "instances": Instances(
                    (image["height"], image["width"]),
                    pred_boxes=Boxes([[40.0, 20.0, 75.0, 50.0]]),
                    scores=torch.tensor([self.score]),
                    pred_classes=torch.tensor([1]),
                )[torch.arange(self.found)]
            }
            for image in batch
        ]


def test_images_with_objects_are_drawn(dataset: str, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.DATASETS.TEST = (dataset,)
    cfg.INPUT.MIN_SIZE_TEST = 30
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    model = _Model().train()
    path = draw_predictions(cfg, model, tmp_path / "out.png", images=2)
    assert model.seen == [2, 4] and model.training
    grid = np.asarray(Image.open(path))
    assert (grid == class_color(0)).all(axis=2).sum() > 100 and (grid == class_color(1)).all(axis=2).sum() > 100


def test_what_a_reader_could_misunderstand_is_said(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = get_cfg()
    cfg.DATASETS.TEST = (dataset,)
    cfg.TEST.DETECTIONS_PER_IMAGE = 0
    with caplog.at_level(logging.WARNING):
        path = draw_predictions(cfg, _Model(score=0.3), tmp_path / "out.png", images=2)
    assert "0 of 2 detections in 2 images reach 0.5, so the best few of each image are drawn in gray" in caplog.text
    assert (
        "2.png has 1 object, but TEST.DETECTIONS_PER_IMAGE (max_detections of the RoI heads) allows only 0"
        in caplog.text
    )
    assert not (np.asarray(Image.open(path)) == class_color(1)).all(axis=2).any()
    caplog.clear()
    cfg.TEST.DETECTIONS_PER_IMAGE = 1
    draw_predictions(cfg, _Model(), tmp_path / "out.png", images=2)
    assert not caplog.records


def test_a_model_that_detects_nothing_is_not_said_to_have_drawings(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = get_cfg()
    cfg.DATASETS.TEST = (dataset,)
    titles: list[list[str]] = []
    monkeypatch.setattr(grid, "image_grid", lambda rows, given: titles.extend(given) or rows[0][0])
    path = draw_predictions(cfg, _Model(found=0), tmp_path / "out.png", images=2)
    assert caplog.messages == [f"{path}: the model detects nothing in 2 images, so no boxes are drawn there"]
    nothing = "prediction, nothing detected"
    assert titles == [["2.png: ground truth, 1 box", nothing, "4.png: ground truth, 1 box", nothing]]


@pytest.mark.parametrize("mask", [[10, 10, 40, 10, 40, 40], {"size": [60, 80], "counts": [600, 60, 4140]}])
def test_masks_of_a_function_may_have_any_form(registered_masks: dict, tmp_path: Path, mask: object) -> None:
    """The training and the evaluation take a single polygon and uncompressed run lengths, too."""
    registered_masks["segmentation"] = mask
    cfg = get_cfg()
    cfg.DATASETS.TEST = ["masks_of_a_function"]
    assert draw_predictions(cfg, _Masks(), tmp_path / "out.png").is_file()
    registered_masks["segmentation"] = [[1, 2]]
    with pytest.raises(UserError, match=r"0\.png: annotations\[0\]\.segmentation has no polygon"):
        draw_predictions(cfg, _Masks(), tmp_path / "out.png")


class _Masks(_Model):
    def forward(self, batch: list[dict]) -> list[dict]:
        outputs = super().forward(batch)
        for output in outputs:
            found = output["instances"]
            found.pred_masks = torch.ones(len(found), *found.image_size, dtype=torch.bool)
        return outputs


@pytest.fixture
def registered_masks(tmp_path: Path) -> Iterator[dict]:
    """Register one image with one object until the end of the test, and return the object."""
    Image.fromarray(np.full((60, 80, 3), 127, np.uint8)).save(tmp_path / "0.png")
    found = {"bbox": [10, 10, 40, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": str(tmp_path / "0.png"), "height": 60, "width": 80, "image_id": 0, "annotations": [found]}
    DatasetCatalog.register("masks_of_a_function", lambda: [record])
    MetadataCatalog.get("masks_of_a_function").set(thing_classes=["thing"])
    yield found
    DatasetCatalog.remove("masks_of_a_function")
