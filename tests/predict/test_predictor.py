"""Test that Predictor finds what an evaluation and Detectron2's DefaultPredictor find."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sn2fpn.modeling
from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode
from sn2fpn.data import build_test_loader, read_image, register_custom
from sn2fpn.data.augmentation import ResizeShortestEdge
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.modeling import build_model
from sn2fpn.precision import autocast
from sn2fpn.predict import Predictor, TiledPredictor
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


def test_predicts_in_the_precision_of_the_training(small_cfg: Callable[..., CfgNode], image: np.ndarray) -> None:
    mixed, single = Predictor(small_cfg({"SOLVER.AMP.ENABLED": True})), Predictor(small_cfg())
    with autocast("cpu", torch.bfloat16):
        expected = single(image)["instances"]
    assert_same(mixed(image)["instances"], expected)
    assert_same(Predictor(single.model, single.resize, precision=torch.bfloat16)(image)["instances"], expected)
    assert not torch.equal(single(image)["instances"].scores, expected.scores)


def test_a_precision_that_is_none_is_refused_by_its_key(small_cfg: Callable[..., CfgNode]) -> None:
    with pytest.raises(UserError, match=r"^SOLVER.AMP.DTYPE: .*'bf16'"):
        Predictor(small_cfg({"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bf16"}))


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


def test_calls_from_threads_leave_the_model_as_it_is(small_cfg: Callable[..., CfgNode], image: np.ndarray) -> None:
    """The mode is never changed, in which batch norms would collect statistics of pictures of other threads."""
    predictor = Predictor(small_cfg({"MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0}))
    expected = predictor(image)["instances"]
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    modes = set()
    predictor.model.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: predictor(image)["instances"], range(8)):
            assert_same(found, expected)
    assert not predictor.model.training and modes == {False}
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())


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


def test_whole_numbers_of_any_kind_are_the_same_picture(small_cfg: Callable[..., CfgNode], image: np.ndarray) -> None:
    """The picture is resized, so that only the same pixels give the same detections."""
    predictor = Predictor(small_cfg())
    expected = predictor(image)["instances"]
    same: list[Any] = [np.asfortranarray(image), image[:, :, ::-1].copy()[:, :, ::-1], image.tolist(), list(image)]
    same += [image.astype(t) for t in (np.int16, np.uint16, np.int32, np.uint64, np.dtype(">u2"))]
    tensor = torch.from_numpy(image)
    same += [tensor, tensor.long(), tensor.flip(2).flip(2).permute(1, 0, 2).contiguous().permute(1, 0, 2)]
    for picture in same:
        assert_same(predictor(picture)["instances"], expected)


def test_floats_of_any_kind_are_the_same_picture(small_cfg: Callable[..., CfgNode], image: np.ndarray) -> None:
    predictor, unresized = Predictor(small_cfg()), Predictor(build_model(small_cfg()))
    floats = image.astype(np.float32)
    assert_same(unresized(floats)["instances"], unresized(image)["instances"])
    expected = predictor(floats)["instances"]
    tensor = torch.from_numpy(floats)
    same: list[Any] = [floats.astype(t) for t in (np.float16, np.float64, np.longdouble, np.dtype(">f4"))]
    same += [
        tensor,
        tensor.double(),
        tensor.half(),
        tensor.bfloat16(),
        tensor.clone().requires_grad_(),
        floats.tolist(),
    ]
    for picture in same:
        assert_same(predictor(picture)["instances"], expected)


_RAGGED = [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]
_UNUSABLE = [
    (np.zeros((4, 4)), "found (4, 4) float64; a gray picture needs three equal channels"),
    (np.zeros((4, 4, 4), np.uint8), "found (4, 4, 4) uint8; convert it with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"),
    (np.zeros((4, 4, 1), np.uint8), "COLOR_GRAY2BGR"),
    (np.zeros((0, 4, 3), np.uint8), "found (0, 4, 3) uint8"),
    (np.zeros((1, 4, 4, 3), np.uint8), "one picture and not a batch"),
    (torch.zeros(3, 5, 7), "found (3, 5, 7) float32; bring the channels to the end"),
    (torch.zeros(5, 7, 3, device="meta"), "found a Tensor that is no array"),
    (torch.zeros(5, 7, 3).to_sparse(), "found a Tensor that is no array"),
    (np.zeros((4, 4, 3), bool), "numbers of the type bool"),
    (np.zeros((4, 4, 3), complex), "numbers of the type complex128"),
    (np.full((4, 4, 3), "0"), "numbers of the type <U1"),
    (np.full((4, 4, 3), None), "numbers of the type object"),
    (np.full((4, 4, 3), 4095, np.uint16), "from 4095 to 4095; 16-bit pictures must be divided by 257, and 12-bit"),
    (np.full((4, 4, 3), -1), "numbers from -1 to -1"),
    (np.full((4, 4, 3), 255.5), "numbers from 255.5 to 255.5"),
    (np.linspace(-1, 1, 48).reshape(4, 4, 3), "floats from -1 to 1 must be brought to 0..255"),
    (np.full((4, 4, 3), np.nan), "numbers from nan to nan"),
    (np.full((4, 4, 3), np.inf), "numbers from inf to inf"),
    (_RAGGED, "found a list that is no array"),
    ("photo.jpg", "found a file name; read the file with sn2fpn.data.read_image"),
    (Path("photo.jpg"), "found a file name"),
    (Image.new("RGB", (4, 4)), "found a picture of PIL"),
    (None, "numbers of the type object"),
    ({"image": 1}, "numbers of the type object"),
]


@pytest.fixture(scope="module")
def predictor(small_cfg: Callable[..., CfgNode]) -> Predictor:
    return Predictor(build_model(small_cfg()))


@pytest.mark.parametrize(("picture", "words"), _UNUSABLE, ids=[words for _, words in _UNUSABLE])
def test_what_is_no_picture_is_refused_with_the_reason(predictor: Predictor, picture: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=r"^image: expected a BGR array \(height, width, 3\) of uint8") as refused:
        predictor(picture)
    assert words in str(refused.value)


def test_floats_from_0_to_1_are_warned_about(
    predictor: Predictor, image: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for harmless in (image, image.astype(np.float32), np.zeros((9, 9, 3)), np.ones((9, 9, 3), np.uint8)):
            predictor(harmless)
        dark = np.concatenate([image, np.full_like(image, 0.4, np.float32)], axis=1)
        TiledPredictor(predictor, tile=32, overlap=0.0)(dark)  # parts of a picture may be dark
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        predictor(image / 255)
    assert "at most 1, so it is nearly black to the model; floats from 0 to 1 must be multiplied by 255" in caplog.text


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_models_of_other_numbers_of_channels(small_cfg: Callable[..., CfgNode], channels: int) -> None:
    """Each channel is resized by itself and stays in its place, also where the format is RGB."""
    mean, std = [float(i) for i in range(channels)], [1.0] * channels
    keys = {"MODEL.PIXEL_MEAN": mean, "MODEL.PIXEL_STD": std, "INPUT.FORMAT": "RGB", "INPUT.MIN_SIZE_TEST": 32}
    cfg = small_cfg()
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    cfg.MODEL.WEIGHTS = ""
    predictor = Predictor(cfg)
    seen: list[torch.Tensor] = []
    predictor.model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, channels)).astype(np.uint8)
    assert predictor(picture)["instances"].image_size == (64, 64)
    for i in range(channels):
        gray = np.asarray(Image.fromarray(picture[:, :, i]).resize((32, 32), Image.Resampling.BILINEAR))
        assert (seen[0][0, i, :32, :32].numpy() == gray.astype(np.float32) - i).all()
    with pytest.raises(
        ArgumentError, match=rf"\(height, width, {channels}\).*reads {channels} channels \(MODEL.PIXEL_M"
    ):
        predictor(np.zeros((64, 64, 3), np.uint8))


def _with_names(weights: str, names: Any, folder: Path) -> str:
    """Write a copy of a checkpoint that carries class names."""
    data = torch.load(weights, weights_only=True)
    torch.save(data | {"class_names": names}, folder / "named.pth")
    return str(folder / "named.pth")


def test_class_names_come_from_the_data_set_or_the_checkpoint(
    small_cfg: Callable[..., CfgNode], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small_cfg()
    own = Predictor(cfg).class_names
    assert own[:2] == ["circle", "square"]
    cfg.MODEL.WEIGHTS = _with_names(cfg.MODEL.WEIGHTS, own, tmp_path)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN = ("not_on_this_machine",)
    with caplog.at_level(logging.WARNING):
        predictor = Predictor(cfg)
        assert predictor.categories == [{"id": i, "name": n} for i, n in enumerate(own)]
        assert not caplog.records
        cfg.MODEL.WEIGHTS = small_cfg().MODEL.WEIGHTS
        assert Predictor(cfg).class_names[:2] == ["class 0", "class 1"]
    assert "class 0" in caplog.text
    assert Predictor(predictor.model).class_names[-1] == f"class {len(own) - 1}"
    assert Predictor(predictor.model, None, predictor.categories).class_names == own


@pytest.mark.parametrize(
    ("change", "words", "ids"),
    [
        (lambda n: ["gasket", *n[1:]], "class 0 is 'gasket' in the checkpoint but 'circle' in data set", range(6)),
        (lambda n: n[::-1], "class 0 is", [6, 5, 4, 3, 2, 1]),  # The ids follow the names.
        (lambda n: n[1:], "the checkpoint names 5 classes but the model has 6", None),
        (lambda n: ["two\nlines", *n[1:]], "class 0 is 'two lines' in the checkpoint", range(6)),
        (lambda n: [1, *n[1:]], "", None),
        (lambda n: "circle", "", None),
        (lambda n: {"circle": 0}, "", None),
        (lambda n: [], "", None),
    ],
)
def test_names_in_a_checkpoint_win_if_they_fit(
    small_cfg: Callable[..., CfgNode],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[list[str]], Any],
    words: str,
    ids: list[int] | None,
) -> None:
    cfg = small_cfg()
    own = Predictor(cfg).categories
    names = change([c["name"] for c in own])
    cfg.MODEL.WEIGHTS = _with_names(cfg.MODEL.WEIGHTS, names, tmp_path)
    with caplog.at_level(logging.WARNING):
        found = Predictor(cfg).categories
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [message for message in warnings if words not in message or not words] == []
    assert bool(warnings) == bool(words)
    if ids is None:
        assert found == own
    else:
        assert [c["name"] for c in found] == [n.replace("\n", " ") for n in names]
        assert [c["id"] for c in found] == list(ids)


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


def test_weights_of_another_pyramid_with_the_same_names_are_refused(
    small_cfg: Callable[..., CfgNode], tmp_path: Path
) -> None:
    cfg = small_cfg()
    data = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)
    cfg.MODEL.WEIGHTS = str(tmp_path / "trained.pth")
    torch.save(data | {"config": cfg.dump()}, cfg.MODEL.WEIGHTS)
    Predictor(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_sn2_fpn_backbone"
    words = r"MODEL.WEIGHTS: .*trained.pth was trained as another model: MODEL.BACKBONE.NAME was build_sn2_sni_backbone"
    with pytest.raises(UserError, match=words):
        Predictor(cfg)


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
