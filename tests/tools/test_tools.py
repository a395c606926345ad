"""Tests of the tools on small configurations: numbers against other computations, pictures and messages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import analyze_model
import compare_engines
import visualize_data
from sn2fpn.config import get_cfg
from sn2fpn.data.shapes import write_shapes
from sn2fpn.modeling import build_model
from sn2fpn.pyramids import PYRAMIDS

ROOT = Path(__file__).parents[2]
FPN, SNI, IHP = (str(ROOT / f"configs/quick/faster_rcnn_R18_{name}_shapes.yaml") for name in ("fpn", "sni", "ihp"))

LAZY = str(ROOT / "configs/lazy/quick_shapes.py")


def _rows(text: str) -> dict[tuple[str, str], list[float]]:
    """Read the numbers of the table by (group, part)."""
    rows, group = {}, ""
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("|") and cells[2].replace(".", "").isdigit():
            group = cells[0] or group
            rows[group.partition(",")[0], cells[1]] = [float(c) for c in cells[2:]]
    return rows


def test_parts_of_several_configs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.CONV_DIM", "64"]  # these follow the files
    assert analyze_model.main(["--size", "100x130", "--config-file", FPN, SNI, IHP, *keys]) == 0
    said = capsys.readouterr().out
    rows = _rows(said)
    assert "128x160" in said
    for group in ("parameters", "GFLOPs", "activations"):
        fpn, sni, ihp = zip(*(rows[group, p] for p in (*analyze_model.PARTS, "total")))
        assert fpn == sni and ihp[1] > fpn[1] and ihp[0] == fpn[0]
        assert sum(fpn[:-1]) == pytest.approx(fpn[-1], abs=0.03)
    assert "mask head" in said and "max_pool2d x2" in said and "RoI pooling" in said


def test_a_pyramid_of_ones_own_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "counted_pyramid.py"
    file.write_text(
        "from sn2fpn.pyramids import SNIFPN, register_pyramid\n\n"
        '@register_pyramid("counted")\nclass Counted(SNIFPN):\n    pass\n'
    )
    keys = ["MODEL.BACKBONE.NAME", "build_sn2_counted_backbone"]
    try:
        assert analyze_model.main(["--import", str(file), "--size", "64x64", "--config-file", FPN, *keys]) == 0
    finally:
        PYRAMIDS.remove("counted")
        sys.modules.pop("counted_pyramid")
    own = _rows(capsys.readouterr().out)
    assert analyze_model.main(["--size", "64x64", "--config-file", SNI]) == 0
    assert own == _rows(capsys.readouterr().out)


def test_a_python_config_counts_as_its_yaml_twin(capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze_model.main(["--config-file", SNI, LAZY]) == 0
    for yaml, lazy in _rows(capsys.readouterr().out).values():
        assert yaml == lazy


@pytest.mark.parametrize("limit", [3, -1])
def test_counts_are_those_of_the_definition(limit: int) -> None:
    """Hooks on all layers count the multiply-adds of a convolution as its outputs times the inputs of one output."""
    cfg = get_cfg()
    cfg.merge_from_file(SNI)
    cfg.merge_from_list(["MODEL.MASK_ON", True, "MODEL.RPN.POST_NMS_TOPK_TEST", 7, "TEST.DETECTIONS_PER_IMAGE", limit])
    model = build_model(cfg).eval()
    counted: dict[str, list[int]] = {}

    def count(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            per_position = module.weight[0].numel()
            transposed = isinstance(module, torch.nn.ConvTranspose2d)
            flops = inputs[0].numel() * per_position if transposed else output.numel() * per_position
            counted.setdefault(name, []).append((flops, output.numel()))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.ConvTranspose2d)):
            module.register_forward_hook(count(name))
    found = analyze_model.analyze(model, (64, 96))
    fc1 = model.roi_heads.box_head.fc1  # computed for all 7 proposals by a function, which its hook does not see
    counted["roi_heads.box_head.fc1"] = [(7 * fc1.weight.numel(), 7 * fc1.out_features)]
    for part, prefixes in analyze_model.PARTS.items():
        mine = [
            c
            for name, calls in counted.items()
            for c in calls
            if name.startswith(tuple(prefixes)) and not (part == "pyramid" and "bottom_up" in name)
        ]
        assert sum(numel for _, numel in mine) == found.activations[part] > 0
        norms_and_upsampling = found.flops[part] - sum(flops for flops, _ in mine)
        assert 0 <= norms_and_upsampling <= 0.02 * found.flops[part]
        if part in ("RPN", "box head", "mask head"):
            assert norms_and_upsampling == 0
    assert sum(found.parameters.values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([SNI, "--size", "800"], "--size 800: expected HEIGHTxWIDTH"),
        ([SNI, "MODEL.RESNETS.DEPHT", "50"], "did you mean 'MODEL.RESNETS.DEPTH'"),
        (["MODEL.RESNETS.DEPTH", "50"], "--config-file: expected a name that ends with .yaml"),
        (["configs/nowhere.yaml"], "config file not found"),
        ([SNI, "INPUT.MIN_SIZE_TEST", "0"], "--size HxW is needed"),
        ([SNI, "MODEL.SNI.ALPHA"], "MODEL.SNI.ALPHA' has no value"),
    ],
)
def test_mistakes_in_analyze_model(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze_model.main(["--config-file", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_mistakes_in_compare_engines(capsys: pytest.CaptureFixture[str]) -> None:
    """Without Detectron2 the missing package is named, and with it the missing file."""
    assert compare_engines.main(["--config-file", "configs/nowhere.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and ("detectron2" in said.lower() or "configs/nowhere.yaml" in said)
    assert compare_engines.main(["--import", "nowhere.py", "--config-file", "configs/nowhere.yaml"]) == 2
    assert "--import nowhere.py: there is no such file" in capsys.readouterr().err


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_shapes(tmp_path / "shapes", {"train": (4, 1), "val": (1, 2)})
    return tmp_path / "shapes"


@pytest.mark.parametrize("source", ["annotation", "dataloader"])
@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (SNI, ["INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TRAIN", "(96,)"]),
        (LAZY, ["dataloader.train.mapper.augmentations.0.short_edges=[96]"]),
    ],
)
def test_training_data_is_drawn(source: str, config: str, changes: list[str], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["--source", source, "--config-file", config, "--output-dir", str(out), "--num", "3"]
    assert visualize_data.main([*argv, *changes]) == 0
    files = sorted(out.iterdir())
    assert [f.name[:6] for f in files] == ["00000_", "00001_", "00002_"]
    for file in files:
        with Image.open(file) as drawn, Image.open(data / "train" / f"{file.stem[6:]}.jpg") as original:
            pixels, before = np.asarray(drawn), np.asarray(original)
        if source == "annotation":
            assert pixels.shape == before.shape and 0 < (pixels != before).any(axis=2).mean() < 0.9
        else:
            assert min(pixels.shape[:2]) == 96


def test_pictures_are_shown_where_windows_open(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--source", "dataloader", "--config-file", LAZY, "--num", "2", "--show"]
    monkeypatch.setattr("matplotlib.get_backend", lambda: "agg")
    assert visualize_data.main(argv) == 2
    assert "--show: no window can be opened" in capsys.readouterr().err
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr("matplotlib.get_backend", lambda: "TkAgg")
    monkeypatch.setattr("matplotlib.pyplot.imshow", lambda picture: shown.append(picture.shape))
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    assert visualize_data.main(argv) == 0
    assert len(shown) == 2 and min(shown[0][:2]) == 192


def test_mistakes_in_visualize_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--source", "annotation", "--config-file", SNI, "--output-dir"]
    assert visualize_data.main([*argv, "/dev/null/out"]) == 2
    assert "--output-dir /dev/null/out: cannot be written" in capsys.readouterr().err
    assert visualize_data.main([*argv, str(tmp_path), "--num", "0"]) == 2
    assert "--num 0" in capsys.readouterr().err
    assert visualize_data.main([*argv, str(tmp_path), "DATASETS.TRAIN", "('shapes_trian',)"]) == 2
    assert "DATASETS.TRAIN: unknown data set 'shapes_trian'; did you mean 'shapes_train'" in capsys.readouterr().err
    assert visualize_data.main([*argv, str(tmp_path), "SEED"]) == 2
    assert "'SEED' has no value" in capsys.readouterr().err
    argv[3] = LAZY
    assert visualize_data.main([*argv, str(tmp_path), "dataloader.train.dataset.names="]) == 2
    assert "dataloader.train.dataset.names: expected the name of a data set" in capsys.readouterr().err
