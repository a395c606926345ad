"""Test that Predictor finds what an evaluation and Detectron2's DefaultPredictor find."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import sn2fpn.modeling
from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode
from sn2fpn.data import build_test_loader, read_image, register_custom
from sn2fpn.data.augmentation import ResizeShortestEdge
from sn2fpn.errors import UserError
from sn2fpn.modeling import build_model
from sn2fpn.predict import Predictor
from sn2fpn.structures import Instances


def assert_same(a: Instances, b: Instances, **tolerance: float) -> None:
    assert a.image_size == b.image_size and len(a) == len(b) > 0
    assert torch.equal(a.pred_classes, b.pred_classes)
    for x, y in ((a.pred_boxes.tensor, b.pred_boxes.tensor), (a.scores, b.scores)):
        torch.testing.assert_close(x, y, **(tolerance or {"rtol": 0, "atol": 0}))


def test_the_old_place_names_the_new_one() -> None:
    with pytest.raises(ImportError, match=r"from sn2fpn\.predict import Predictor"):
        from sn2fpn.modeling import Predictor as _
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = sn2fpn.modeling.Predicter


@pytest.fixture
def image(shapes: Path) -> np.ndarray:
    return read_image(shapes / "val/000002.jpg", "BGR")


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_equals_evaluation(small_cfg: Callable[..., CfgNode], shapes: Path, order: str) -> None:
    entry = {
        "NAME": "predictor_val",
        "FORMAT": "coco",
        "JSON": str(shapes / "annotations/instances_val.json"),
        "IMAGES": str(shapes / "val"),
    }
    register_custom([entry])
    cfg = small_cfg({"INPUT.FORMAT": order, "MODEL.PIXEL_MEAN": [100.0, 110.0, 140.0]})
    predictor = Predictor(cfg)
    for (item,) in build_test_loader(cfg, "predictor_val"):
        image = read_image(item["file_name"], "BGR")
        with torch.no_grad():
            expected = predictor.model.eval()([item])[0]["instances"]
        assert_same(predictor(image)["instances"], expected)


def test_a_ready_model_keeps_its_mode_and_may_see_pictures_in_their_own_size(
    small_cfg: Callable[..., CfgNode], image: np.ndarray
) -> None:
    cfg = small_cfg()
    model = Predictor(cfg).model.train()
    model.backbone.bottom_up.eval()
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    assert_same(Predictor(model, resize)(image)["instances"], Predictor(cfg)(image)["instances"])
    assert model.training and not model.backbone.bottom_up.training
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    model.eval()
    assert_same(Predictor(model)(image)["instances"], model([{"image": pixels}])[0]["instances"])


def test_arrays_of_any_layout_and_float_type(small_cfg: Callable[..., CfgNode], image: np.ndarray) -> None:
    model = build_model(small_cfg())
    expected = Predictor(model)(image)["instances"]
    assert_same(Predictor(model)(np.asfortranarray(image))["instances"], expected)
    assert_same(Predictor(model)(image[:, :, ::-1].copy()[:, :, ::-1])["instances"], expected)
    assert_same(Predictor(model)(image.astype(np.float32))["instances"], expected)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), bool)]
)
def test_other_arrays_are_refused(small_cfg: Callable[..., CfgNode], array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"BGR array \(height, width, 3\) of uint8, found"):
        Predictor(build_model(small_cfg()))(array)


def test_weights_must_be_those_of_the_whole_model(
    small_cfg: Callable[..., CfgNode], image: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small_cfg({"MODEL.BACKBONE.NAME": "build_sn2_ihp_backbone"})  # The weights belong to another pyramid.
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS: .*box.pth lacks \d+ of this model's tensors.*ihp_filter"):
        Predictor(cfg)
    cfg.MODEL.WEIGHTS = ""
    with caplog.at_level(logging.WARNING):
        assert "instances" in Predictor(cfg)(image)
    assert "random weights" in caplog.text


def test_averaged_weights_are_used_as_in_an_evaluation(
    small_cfg: Callable[..., CfgNode], image: np.ndarray, tmp_path: Path
) -> None:
    cfg = small_cfg()
    expected = Predictor(cfg)(image)["instances"]

    class Average:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return torch.load(small_cfg().MODEL.WEIGHTS, weights_only=True)["model"]

    Checkpointer(build_model(cfg), tmp_path, ema=Average()).save("averaged")
    cfg.merge_from_list(["MODEL.WEIGHTS", str(tmp_path / "averaged.pth"), "SOLVER.EMA.ENABLED", True])
    assert_same(Predictor(cfg)(image)["instances"], expected)
    cfg.MODEL.WEIGHTS = small_cfg().MODEL.WEIGHTS
    with pytest.raises(UserError, match="holds no averaged weights"):
        Predictor(cfg)


@pytest.mark.detectron2
@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_equals_detectron2s(small_cfg: Callable[..., CfgNode], image: np.ndarray, order: str) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    from sn2fpn.config import add_study_config

    cfg = small_cfg({"INPUT.FORMAT": order, "MODEL.BACKBONE.NAME": "build_sn2_fpn_backbone"})
    theirs = get_cfg()
    add_study_config(theirs)
    theirs.merge_from_other_cfg(cfg)
    theirs.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    expected = DefaultPredictor(theirs)(image)["instances"]
    found = Predictor(cfg)(image)["instances"]
    assert tuple(found.image_size) == tuple(expected.image_size) and len(found) == len(expected) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
