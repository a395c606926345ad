"""Tests of `python -m sn2fpn.export` as a user runs it, and of the example that runs its file without this package."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_models import CONFIG, KEYS, as_list, filled, picture, small_config
from PIL import Image

from sn2fpn.checkpoint import Checkpointer
from sn2fpn.data import DatasetCatalog, class_names, read_image, register_coco_instances, shapes
from sn2fpn.engine.lazy import LazyRecipe
from sn2fpn.errors import UserError
from sn2fpn.export.__main__ import main
from sn2fpn.export.run import _check_heads
from sn2fpn.export.tracing import quiet_torchscript
from sn2fpn.modeling import build_model
from sn2fpn.modeling.roi_heads.mask_pasting import paste_masks
from sn2fpn.predict import Predictor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "run_exported.py"

Command = Callable[..., int]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small Mask R-CNN."""
    folder = tmp_path_factory.mktemp("weights")
    Checkpointer(filled(small_config()), folder).save("model")
    return folder / "model.pth"


@pytest.fixture
def command(weights: Path, tmp_path: Path) -> Command:
    """A function that runs the command line with flags, which replace the usual ones, and returns the exit code."""

    def run(*more: Any, keys: dict[str, Any] | None = None, **flags: Any) -> int:
        usual = {"config_file": CONFIG, "weights": weights, "format": "onnx", "output": tmp_path / "model.onnx"}
        argv = [str(x) for k, v in (usual | flags).items() for x in (f"--{k.replace('_', '-')}", v)]
        return main([*map(str, more), *argv, *as_list(KEYS | (keys or {}))])

    return run


@pytest.fixture(scope="module")
def example() -> Any:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("run_exported", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def few_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the data set shapes, which is drawn at its first use, have few pictures."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for split, (_, seed) in list(shapes.SPLITS.items()):
        monkeypatch.setitem(shapes.SPLITS, split, (6, seed))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("few_shapes")
def test_an_export_and_its_use_without_this_package(
    command: Command, weights: Path, example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example's detections and masks are the predictor's, in the pixels of a picture that has to be resized.

    The AP of the file and of the model are equal, in boxes and in masks.
    """
    file = tmp_path / "picture.png"
    Image.fromarray(picture(1, 141, 187).permute(1, 2, 0).numpy()).save(file)
    assert command("--check", file, "--evaluate", "shapes_val[:6]") == 0
    said = capsys.readouterr().out
    scores = [line for line in said.splitlines() if "AP on shapes_val[:6]" in line]
    assert len(scores) == 2 and all(line.endswith("(+0.00)") for line in scores)
    assert "input image: uint8 (3, height, width)" in said and "output masks: float32 (detections, 28, 28)" in said
    assert "detections as the model" in said and "on 1 CPU thread: model 0." in said and "MiB" in said

    cfg = small_config({"MODEL.WEIGHTS": str(weights)})
    expected = Predictor(cfg)(read_image(file, "BGR"))["instances"]
    boxes, scores, names, masks = example.detect(str(tmp_path / "model.onnx"), file)
    assert len(boxes) == len(expected) > 0
    assert np.allclose(boxes, expected.pred_boxes.tensor, atol=2e-2) and np.allclose(scores, expected.scores, atol=1e-4)
    known = ["circle", "square", "triangle"]
    assert set(names) & set(known) and names[0] == Predictor(cfg).class_names[int(expected.pred_classes[0])]
    wrong = (masks != expected.pred_masks.numpy()).sum((1, 2))
    assert (wrong <= 2 + 0.002 * masks.sum((1, 2))).all()

    program = [sys.executable, "-I", str(EXAMPLE), str(tmp_path / "model.onnx"), str(file)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(boxes) and lines[0].startswith(f"{names[0]} {scores[0]:.3f} in [")
    assert command() == 2 and "it exists already" in capsys.readouterr().err
    metadata = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert metadata["input_format"] == "BGR" and "SCORE_THRESH_TEST: 0.6" in metadata["configuration"]


def test_soft_nms_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"MODEL\.ROI_HEADS\.SOFT_NMS\.METHOD \(.*\): expected none.*a traced graph cannot express"
    ):
        _check_heads(build_model(small_config({"MODEL.ROI_HEADS.SOFT_NMS.METHOD": "linear"})).roi_heads)


def test_the_guide_shows_the_example() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert f"```python\n{text}```" in (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert "import sn2fpn" not in text and "from sn2fpn" not in text


def _session(shape: list[Any] = [3, "height", "width"], kind: str = "uint8", **about: str) -> Any:  # noqa: B006
    """A session of onnxruntime, as far as the example looks at it before it runs the file."""
    model_input = SimpleNamespace(shape=shape, type=f"tensor({kind})")
    meta = SimpleNamespace(custom_metadata_map={"input_format": "BGR"} | about)
    return SimpleNamespace(get_inputs=lambda: [model_input], get_modelmeta=lambda: meta)


def test_the_example_reads_pictures_as_the_package_does(example: Any, tmp_path: Path) -> None:
    """Upright, with 16 bits scaled to 8, and in the size and type that the file takes."""
    colors = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    turned, deep = tmp_path / "turned.png", tmp_path / "deep.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colors).save(turned, exif=exif)
    Image.fromarray(np.arange(0, 65536, 16, np.uint16).reshape(64, 64)).save(deep)
    for file in (turned, deep):
        pixels, factor, size = example.read(_session(), file)  # without min_size: pictures keep their size
        expected = read_image(file, "BGR")
        assert size == expected.shape[1::-1] and factor.tolist() == [1, 1] and pixels.dtype == np.uint8
        assert np.abs(pixels.transpose(1, 2, 0).astype(int) - expected).max() <= 1
    pixels, factor, size = example.read(_session([3, 100, 90], "float", min_size="80", max_size="200"), turned)
    assert pixels.shape == (3, 100, 90) and pixels.dtype == np.float32
    assert size == (40, 60) and factor == pytest.approx([90 / 40, 100 / 60])
    assert example.read(_session(min_size="80", max_size="100"), turned)[0].shape == (3, 100, 67)


def test_masks_are_pasted_as_in_the_evaluation(example: Any) -> None:
    """Boxes that reach over the border count too."""
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((6, 28, 28), np.float32))
    corners = rng.random((6, 4), np.float32) * [60, 40, 60, 40]
    boxes = torch.from_numpy(np.concatenate([corners[:, :2] - 5, corners[:, :2] + corners[:, 2:] + 2], 1)).float()
    found = example.paste_masks(masks.numpy(), boxes.numpy(), 90, 70)
    expected = paste_masks(masks, boxes, (70, 90)).numpy()
    assert found.shape == (6, 70, 90) and expected.any() and (found != expected).sum() <= 3


@pytest.mark.parametrize(
    ("more", "flags", "message"),
    [
        ((), {"output": "model.pt"}, "--output model.pt: expected a name that ends in .onnx for --format onnx"),
        (("--opset", 15), {}, "--opset: expected 18 to 23, found 15"),
        (("--opset", 18), {"format": "torchscript", "output": "a.pt"}, "--opset belongs to --format onnx"),
        (("--int8", "a.jpg"), {"format": "torch_export", "output": "a.pt2"}, "--int8 belongs to --format onnx"),
        (("--size", 0, 200), {}, "--size 0 200: expected 65 to 8192 pixels for the height, found 0"),
        (("--size", 200, 90000), {}, "--size 200 90000: expected 65 to 8192 pixels for the width, found 90000"),
        (("--check", "nothing.jpg"), {}, "--check nothing.jpg: there is no such picture; choose from: picture.png"),
        (("--int8", "pictur.png"), {}, "--int8 pictur.png: there is no such picture; did you mean 'picture.png'?"),
        (("--check", "."), {}, "--check .: expected pictures, found a folder; name its files, such as *.jpg"),
        (("--check", str(CONFIG)), {}, f"--check {CONFIG}: not decodable as an image"),
        (("--evaluate", "shapes_val", "--size", 96, 160), {}, "leave out --size"),
        (("--evaluate", "shapez_val"), {}, "--evaluate: unknown data set 'shapez_val'; did you mean 'shapes_val'"),
        ((), {"weights": "nothing.pth"}, "--weights"),
        ((), {"weights": CONFIG}, "--weights"),
    ],
)
def test_mistakes(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[Any, ...],
    flags: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nothing.txt", "picture.png"):  # the first one is no picture and therefore no suggestion
        (tmp_path / name).touch()
    assert command(*more, **flags) == 2
    said = capsys.readouterr().err
    assert "error: " in said and message in said and "Traceback" not in said
    assert not (tmp_path / "model.onnx").exists() and not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("threshold", [0.6, 0.999])
def test_what_was_not_compared_is_not_said_to_be_equal(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold: float
) -> None:
    file = tmp_path / "picture.png"
    Image.fromarray(picture(1, 96, 128).permute(1, 2, 0).numpy()).save(file)
    flags = {"format": "torchscript", "output": tmp_path / "model.pt"}
    assert command("--check", file, keys={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": threshold}, **flags) == 0
    said = capsys.readouterr().out
    empty = "picture.png: no detections, neither by the file nor by the model, so nothing was compared"
    nothing = "warning: the file was not compared with the model, because neither detects anything in these pictures"
    assert (empty in said) == (nothing in said) == (threshold > 0.9)
    assert ("detections as the model; the largest differences are" in said) == (threshold < 0.9)


def test_keys_behind_pictures(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that takes pictures takes the keys behind them too."""
    argv = ["--config-file", str(CONFIG), "--weights", str(weights), "--format", "onnx"]
    keys = ["--check", "MODEL.MASK_ON", "True"]
    assert main([*argv, "--output", str(tmp_path / "a.onnx"), *keys, "--dtype", "uint8", *as_list(KEYS)]) == 2
    assert "MODEL.MASK_ON: expected a picture; put another flag" in capsys.readouterr().err


def test_pictures_that_are_too_small(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(keys={"INPUT.MIN_SIZE_TEST": 48}) == 2
    expected = "INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST: expected pictures with sides from 65 to 8192 pixels, found"
    assert expected in capsys.readouterr().err
    Image.new("RGB", (900, 90)).save(tmp_path / "strip.png")
    assert command("--check", tmp_path / "strip.png") == 2
    assert f"--check {tmp_path / 'strip.png'}: after resizing by {expected}" in capsys.readouterr().err


def test_what_the_file_leaves_out_is_said(command: Command, caplog: pytest.LogCaptureFixture) -> None:
    assert command(keys={"TEST.AUG.ENABLED": True, "INPUT.MIN_SIZE_TEST": 48}) == 2
    assert "TEST.AUG.ENABLED True has no effect on the file" in caplog.text


def test_an_evaluation_on_strips_is_refused_before_the_export(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of torch.export takes no side below 65 pixels."""
    Image.new("RGB", (900, 90)).save(tmp_path / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 50, 50], "area": 2500, "iscrowd": 0}
    content = {"images": [{"id": 1, "file_name": "a.png", "height": 90, "width": 900}], "annotations": [box]}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate("abcdef")]
    (tmp_path / "a.json").write_text(json.dumps(content))
    register_coco_instances("strips", {}, tmp_path / "a.json", tmp_path)
    try:
        assert command("--evaluate", "strips", format="torch_export", output=tmp_path / "a.pt2") == 2
    finally:
        DatasetCatalog.remove("strips")
    said = capsys.readouterr().err
    assert f"--evaluate strips: {tmp_path / 'a.png'}: after resizing by INPUT.MIN_SIZE_TEST" in said
    assert "found 16 x 160" in said and not (tmp_path / "a.pt2").exists()


def test_evaluation_without_annotations_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (90, 90)).save(tmp_path / "a.png")
    classes = [{"id": i, "name": name} for i, name in enumerate("abcdef")]
    content = {"images": [{"id": 1, "file_name": "a.png", "height": 90, "width": 90}], "categories": classes}
    (tmp_path / "a.json").write_text(json.dumps(content))
    register_coco_instances("to_predict_on", {}, tmp_path / "a.json", tmp_path)
    try:
        assert command("--evaluate", "to_predict_on") == 2
    finally:
        DatasetCatalog.remove("to_predict_on")
    assert "--evaluate to_predict_on: 1 of 1 image has no 'annotations'" in capsys.readouterr().err


def test_weights_of_another_model(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(keys={"MODEL.FPN.OUT_CHANNELS": 16}) == 2
    assert "--weights" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(command: Command, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(output=weights / "model.onnx") == 2
    assert "model.onnx" in capsys.readouterr().err


def test_unknown_format(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(format="onxx")
    assert "unknown value 'onxx'; did you mean 'onnx'?" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert command() == 2
    assert f"needs the package {package}; run: pip install 'sn2fpn[onnx]'" in capsys.readouterr().err


def test_an_old_torch(command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    assert command() == 2
    assert "the export needs torch 2.9 or newer, found 2.6.0+cpu" in capsys.readouterr().err


def test_help_answers_without_torch() -> None:
    code = "import sys, sn2fpn.export.__main__ as m; m.parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_python_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TorchScript has the metadata too, and the exit code says that the detections are equal."""
    file, small = ROOT / "configs/lazy/quick_shapes.py", ["model.backbone.out_channels=16"]
    torch.manual_seed(0)
    Checkpointer(LazyRecipe(str(file), small).build_model(), tmp_path).save("model")
    flags = {"config-file": file, "weights": tmp_path / "model.pth", "format": "torchscript", "size": 96}
    argv = [str(x) for k, v in flags.items() for x in (f"--{k}", v)]
    keys = [*small, "train.device=cuda"]  # it is exported on the CPU, as with YAML
    assert main([*argv, "130", "--output", str(tmp_path / "out" / "model.pt"), *keys]) == 0
    said = capsys.readouterr().out
    assert "input image: uint8 (3, height, width)" in said and "time per image of 96x130" in said  # takes any size
    extra = {"metadata.json": ""}
    with quiet_torchscript():
        torch.jit.load(str(tmp_path / "out" / "model.pt"), _extra_files=extra)
    metadata = json.loads(extra["metadata.json"])
    assert metadata["max_size"] == 320 and "max_iter: 780" in metadata["configuration"]


@pytest.mark.usefixtures("few_shapes")
def test_evaluation_on_classes_in_another_order(
    command: Command, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.load(weights, weights_only=True)
    names = class_names("shapes_val[:2]")
    torch.save(saved | {"class_names": names[::-1]}, tmp_path / "other.pth")
    assert command("--evaluate", "shapes_val[:2]", weights=tmp_path / "other.pth") == 2
    said = capsys.readouterr()
    expected = (
        f"--evaluate: class 0 is {names[-1]!r} in {tmp_path / 'other.pth'} and {names[0]!r} in data set 'shapes_val"
    )
    assert expected in said.out + said.err
    assert not (tmp_path / "model.onnx").exists()
