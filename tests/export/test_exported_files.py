"""Tests of exported files: their detections are the model's at any size, and they say what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_models import CASCADE, NORMED_HEADS, picture
from torch import Tensor

from golden_detectron2 import CASES, inputs
from golden_detectron2 import model as golden_model
from sn2fpn.errors import ArgumentError
from sn2fpn.export.comparison import compare, detections_of
from sn2fpn.export.files import ENDINGS, check_opset, load_exported, write_exported
from sn2fpn.export.inference import PlainDetector
from sn2fpn.export.int8 import quantise
from sn2fpn.export.tracing import quiet_torchscript
from sn2fpn.modeling import GeneralizedRCNN
from sn2fpn.pyramids import PYRAMIDS

Detector = Callable[..., GeneralizedRCNN]

SIZES = [picture(0), picture(1, 130, 101), picture(3, 70, 65)]
_WHOLE = {"fapn": 19, "bifpn": 18}
"""Pyramids that are exported in a whole detector, as SNI is, and the opsets of their operators."""


def export(model: GeneralizedRCNN, path: Path, kind: str = "onnx", image: Tensor = SIZES[0], **options: Any) -> Any:
    """Export a model and return the function that runs the file."""
    options = {"metadata": {}, "dynamic": True} | options
    write_exported(PlainDetector(model), image, path, kind, **options)
    return load_exported(path, kind, threads=1)


def check(run: Callable[[Tensor], list[Tensor]], model: GeneralizedRCNN, images: list[Tensor]) -> None:
    for image in images:
        expected = detections_of(model, image)
        difference = compare(run(image), expected)
        assert len(expected[0]) and difference.equal, difference


class _Maps(PlainDetector):
    """The trunk and the pyramid alone, since an export of the heads takes half a minute and is the same for all."""

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of an image, from the finest to the coarsest one."""
        return tuple(self.backbone(self._padded((image - self.pixel_mean) / self.pixel_std)).values())


def check_maps(model: GeneralizedRCNN, path: Path) -> None:
    """Export the trunk and the pyramid of a model, and compare their maps."""
    maps = _Maps(model)
    write_exported(maps, SIZES[0], path, "onnx", {}, dynamic=True)
    run = load_exported(path, "onnx", threads=1)
    for image in SIZES:
        for found, expected in zip(run(image), maps(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def check_operators(path: Path, opset: int) -> None:
    graph = onnx.load(str(path))
    assert graph.opset_import[0].version == opset
    assert [node.op_type for node in graph.graph.node].count("RoiAlign") == 2 * 4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "opset"), _WHOLE.items())
def test_whole_detectors_in_onnxruntime(detector: Detector, tmp_path: Path, name: str, opset: int) -> None:
    """The sizes are odd, so the images are padded, and the coarsest maps have odd sizes."""
    model = detector({"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"})
    check(export(model, tmp_path / "model.onnx"), model, SIZES)
    check_operators(tmp_path / "model.onnx", opset)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PYRAMIDS if name not in ("sni", *_WHOLE)])
def test_every_other_pyramid_in_onnxruntime(detector: Detector, tmp_path: Path, name: str) -> None:
    check_maps(detector({"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"}), tmp_path / "maps.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("upsample", ["deconv", "carafe", "dysample"])
def test_upsampling_with_weights(detector: Detector, tmp_path: Path, upsample: str) -> None:
    keys = {"MODEL.FPN.UPSAMPLE": upsample, "MODEL.BACKBONE.NAME": "build_sn2_fpn_backbone"}
    check_maps(detector(keys), tmp_path / "maps.onnx")


@pytest.mark.slow
def test_faster_rcnn_at_a_fixed_size(detector: Detector, tmp_path: Path) -> None:
    """The input has the asked type and size, and pictures of other sizes are refused by onnxruntime."""
    model, image = detector({"MODEL.MASK_ON": False}), SIZES[0].float()
    run = export(model, tmp_path / "model.onnx", image=image, dynamic=False, opset=20)
    check(run, model, [image, picture(2).float() * 0.9])
    graph = onnx.load(str(tmp_path / "model.onnx"))
    (given,) = graph.graph.input
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == list(image.shape)
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and graph.opset_import[0].version == 20
    assert [output.name for output in graph.graph.output] == ["boxes", "scores", "classes"]
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(SIZES[1].float())


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_norms_in_the_heads(detector: Detector, tmp_path: Path, norm: str) -> None:
    """PyTorch's operators for them ask for the number of detections, which no graph knows."""
    model = detector(NORMED_HEADS[norm])
    check(export(model, tmp_path / "model.onnx"), model, SIZES)


@pytest.mark.slow
def test_a_whole_resnet50(tmp_path: Path) -> None:
    """This is a Mask R-CNN with the weights and the image of a golden case, whose numbers are Detectron2's."""
    case = CASES["infer_mask_r50"]
    model = golden_model(case).eval()
    image = inputs(case)[0]["image"]
    check(export(model, tmp_path / "model.onnx", image=image), model, [image, image[:, 20:, :-31].contiguous()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDINGS)
def test_cascades(detector: Detector, tmp_path: Path, kind: str) -> None:
    model = detector(CASCADE)
    check(export(model, tmp_path / f"model{ENDINGS[kind]}", kind), model, SIZES)
    if kind == "onnx":
        graph = onnx.load(str(tmp_path / "model.onnx"))
        assert [node.op_type for node in graph.graph.node].count("RoiAlign") == 4 * 4  # three stages and the masks


@pytest.fixture(scope="module")
def sni(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> tuple[GeneralizedRCNN, Path]:
    """A Mask R-CNN whose score threshold is so high that nothing is detected in a plain picture, and its file."""
    model = detector()
    model.roi_heads.score_thresh = 0.0
    model.roi_heads.score_thresh = float(detections_of(model, _plain())[1].max()) + 1e-3
    path = tmp_path_factory.mktemp("onnx") / "sni.onnx"
    export(model, path, metadata={"class_names": ["a", "b"], "producer": "sn2fpn"})
    return model, path


def _plain() -> Tensor:
    return torch.full((3, 97, 150), 114, dtype=torch.uint8)


@pytest.mark.slow
def test_sni_in_onnxruntime(sni: tuple[GeneralizedRCNN, Path]) -> None:
    model, path = sni
    check(load_exported(path, "onnx", threads=1), model, SIZES)
    check_operators(path, 18)


@pytest.mark.slow
def test_a_picture_without_detections(sni: tuple[GeneralizedRCNN, Path]) -> None:
    model, path = sni
    run = load_exported(path, "onnx", threads=1)
    boxes, scores, classes, masks = run(_plain())
    assert boxes.shape == (0, 4) and scores.shape == classes.shape == (0,) and masks.shape == (0, 28, 28)
    check(run, model, SIZES[:1])


@pytest.mark.slow
def test_the_file_says_what_it_is(sni: tuple[GeneralizedRCNN, Path]) -> None:
    graph = onnx.load(str(sni[1]))
    onnx.checker.check_model(graph)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata["class_names"]) == ["a", "b"] and metadata["producer"] == "sn2fpn"
    shapes = [[d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.graph.output]
    assert shapes == [["detections", 4], ["detections"], ["detections"], ["detections", 28, 28]]
    (given,) = graph.graph.input
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == [3, "height", "width"]


@pytest.mark.slow
def test_int8(sni: tuple[GeneralizedRCNN, Path], tmp_path: Path) -> None:
    """Quantised weights are integers, those of the last layers are floats, and strong detections are found again."""
    model, path = sni
    share = quantise(path, tmp_path / "int8.onnx", [picture(seed) for seed in range(4)])
    assert 0.9 < share < 1
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * path.stat().st_size
    kinds = {t.name: t.data_type for t in onnx.load(str(tmp_path / "int8.onnx")).graph.initializer}
    int8 = {name.removesuffix("_quantized") for name, kind in kinds.items() if kind == onnx.TensorProto.INT8}
    convolutions = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and n.startswith("backbone")]
    assert len([n for n in int8 if n.startswith("backbone") and n.endswith("weight")]) == len(convolutions)
    assert {"roi_heads.box_head.fc1.weight", "proposal_generator.rpn_head.conv.weight"} <= int8
    floats = {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}
    last = {"roi_heads.box_predictor.bbox_pred.weight", "proposal_generator.rpn_head.anchor_deltas.weight"}
    assert last <= floats
    found = load_exported(tmp_path / "int8.onnx", "onnx", threads=1)(SIZES[0])
    assert len(found) == 4 and len(found[0])


@pytest.mark.slow
def test_only_products_are_quantised_and_counted(tmp_path: Path) -> None:
    """Norms and deformable convolutions stay as they are."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = torch.nn.ModuleDict(
                {"conv": torch.nn.Conv2d(3, 8, 3, padding=1), "norm": torch.nn.LayerNorm(16)}
            )
            self.last = torch.nn.Conv2d(8, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.last(self.backbone["norm"](self.backbone["conv"](image[None])))

    path = tmp_path / "model.onnx"
    torch.onnx.export(Model().eval(), (torch.rand(3, 16, 16),), path, input_names=["image"], dynamo=True, verbose=False)
    share = quantise(path, tmp_path / "int8.onnx", [torch.rand(3, 16, 16) for _ in range(2)])
    assert share == 216 / (216 + 32)
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    (norm,) = (node for node in graph.node if node.op_type == "LayerNormalization")
    assert "backbone.norm.weight" in norm.input


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_files_for_pytorch(detector: Detector, tmp_path: Path, kind: str) -> None:
    model = detector()
    path = tmp_path / f"model{ENDINGS[kind]}"
    run = export(model, path, kind, metadata={"class_names": ["a"]})
    check(run, model, SIZES)
    extra = {"metadata.json": ""}
    with quiet_torchscript():
        (torch.jit.load if kind == "torchscript" else torch.export.load)(str(path), **_extra(kind, extra))
    assert json.loads(extra["metadata.json"]) == {"class_names": ["a"]}


def _extra(kind: str, extra: dict[str, str]) -> dict[str, Any]:
    return {"_extra_files": extra} if kind == "torchscript" else {"extra_files": extra}


def test_opsets(detector: Detector) -> None:
    plain, deformable = (
        PlainDetector(detector({"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"})) for name in ("fpn", "fapn")
    )
    assert (check_opset(None, plain), check_opset(None, deformable), check_opset(21, plain)) == (18, 19, 21)
    with pytest.raises(ArgumentError, match="opset: expected 18 to 23, found 15"):
        check_opset(15, plain)
    with pytest.raises(ArgumentError, match="deformable convolutions, which need 19, found 18"):
        check_opset(18, deformable)


def test_images_are_arrays_of_the_given_type(detector: Detector) -> None:
    """Integers and floats of the same values give equal detections."""
    plain = PlainDetector(detector())
    assert all(np.array_equal(a, b) for a, b in zip(plain(SIZES[0]), plain(SIZES[0].float())))
