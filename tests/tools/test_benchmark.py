"""The benchmark on small sizes: its parts, its counts against formulas, and its tables, pages and messages."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

import benchmark
from benchmarks import command, detector, evaluation, loading, pyramids, startup, upsampling
from benchmarks.engines import ENGINES, STAGES
from benchmarks.flops import count_flops
from benchmarks.machine import LAYOUTS, watch_load
from benchmarks.table import groups, mark
from sn2fpn.command_line import CommandLineParser

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quick/faster_rcnn_R18_fpn_shapes.yaml")
PAGE = "before\n<!-- benchmark: {0} -->\nold\n<!-- end of benchmark: {0} -->\nafter\n"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def measure(tmp_path: Path, part: str, *flags: str) -> tuple[dict[str, Any], str]:
    """Run a part with small sizes, and return its results and its section of a page."""
    page, file = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(PAGE.format(part), encoding="utf-8")
    arguments = [part, "--quick", "--json", str(file), "--picture", str(tmp_path / "picture.svg")]
    assert benchmark.main([*arguments, "--markdown", str(page), *flags]) == 0
    (run,) = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert run["part"] == part and torch.__version__.startswith(run["about"]["torch"])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "\nold\n" not in text
    assert run["command"] in text and "--quick" in text
    assert (tmp_path / "picture.svg").stat().st_size > 1000
    return run["results"], text


# A small detector that torchvision has too.
SMALL = ["MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "MODEL.FPN.OUT_CHANNELS", "256"]
SMALL += ["MODEL.ROI_BOX_HEAD.FC_DIM", "1024"]
# Few regions, whose heads take most of the time on a small image.
FEW = ["MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40"]
FEW += ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"]


@torch.no_grad()
def test_torchvision_and_the_native_engine_have_equal_weights() -> None:
    ours, theirs = (
        ENGINES[name](CONFIG, [*SMALL, "MODEL.MASK_ON", "True"], "cpu").model.eval()
        for name in ("native", "torchvision")
    )
    image, pooled = torch.randn(1, 3, 64, 96), torch.randn(3, 256, 7, 7)
    for a, b in zip(ours.backbone(image).values(), theirs.backbone(image).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    scores, deltas = ours.roi_heads.box_predictor(ours.roi_heads.box_head(pooled))
    their_scores, their_deltas = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
    torch.testing.assert_close(scores.roll(1, dims=1), their_scores, rtol=1e-3, atol=1e-3)  # the background comes first
    torch.testing.assert_close(deltas.flatten(1), their_deltas[:, 4:], rtol=1e-3, atol=1e-3)
    logits = theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(pooled))
    torch.testing.assert_close(ours.roi_heads.mask_head(pooled), logits[:, 1:], rtol=1e-3, atol=1e-3)


def test_the_detector_by_stage_and_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "read_size", lambda text: (64, 64))
    flags = ["--repeats", "1", "--no-memory", "--engines", "native", "torchvision", "--batch", "1"]
    flags += ["--config-file", CONFIG, "--precision", "float32", "bfloat16", "--device", "cpu"]
    results, text = measure(tmp_path, "detector", *flags, *SMALL, *FEW)
    found = {(row["engine"], row["precision"], row["mode"]): row for row in results["rows"]}
    contenders = {(e, p) for e in ("native", "torchvision") for p in ("float32", "bfloat16")}
    assert set(found) == {(*c, mode) for c in contenders for mode in detector.MODES}
    for row in found.values():
        inner = STAGES if row["mode"] == "training" else ()  # whose times are parts of "forward"
        assert row["seconds"] == pytest.approx(sum(s for name, s in row["stages"].items() if name not in inner))
        assert all(row["stages"][name] > 0 and row["gflop_stages"][name] > 0 for name in STAGES)
    for mode in detector.MODES:
        ours, theirs = (found[engine, "float32", mode]["gflop_stages"] for engine in ("native", "torchvision"))
        assert ours["trunk + pyramid"] == theirs["trunk + pyramid"]
        assert ours["RoI heads"] == pytest.approx(theirs["RoI heads"], rel=0.02)
    # The native engine computes the gradients of the sampled anchors alone.
    assert ours["forward"] < ours["backward"] < theirs["backward"]
    assert theirs["backward"] == pytest.approx(2 * theirs["forward"], rel=0.1)
    assert {(p["precision"], p["layout"]) for p in results["peaks"]} == {
        (precision, layout) for precision in ("float32", "bfloat16") for layout in LAYOUTS
    }
    assert "inference of 1 image" in text and "training: backward" in text and "detections per image" in text
    assert text.count("torchvision bfloat16 |") == 2 and "MODEL.RESNETS.NORM FrozenBN" in text


@pytest.mark.slow
def test_peak_memory_of_a_process_of_its_own(tmp_path: Path) -> None:
    flags = ["--repeats", "1", "--engines", "native", "--modes", "inference", "--config-file", CONFIG]
    results, text = measure(tmp_path, "detector", *flags)
    assert 150 < results["rows"][0]["memory_mib"] < 3000 and "peak memory" in text


def test_operations_are_those_of_the_formula() -> None:
    x = torch.randn(2, 8, 10, 12, requires_grad=True)
    for conv in (nn.Conv2d(8, 16, 3), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 16, 2, stride=2)):
        places = x if conv.transposed else conv(x)
        forward = 2 * places.numel() * conv.weight[0].numel() / 1e9
        assert count_flops(lambda conv=conv: conv(x)) == pytest.approx(forward)
        assert count_flops(lambda conv=conv: conv(x).sum().backward()) == pytest.approx(3 * forward)
    offset, weight = torch.zeros(2, 18, 8, 10), torch.randn(16, 8, 3, 3, requires_grad=True)
    plain = count_flops(lambda: nn.functional.conv2d(x, weight).sum().backward())
    assert count_flops(lambda: deform_conv2d(x, offset, weight).sum().backward()) == pytest.approx(plain)


def test_evaluation_asserts_equal_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, text = measure(tmp_path, "evaluation")
    assert [row["task"] for row in results["rows"]] == ["bbox", "segm"] and "30 images" in text
    assert all(20 < row["AP"] < 80 and row["pycocotools_s"] > 0 for row in results["rows"])
    by_pycocotools = evaluation._by_pycocotools
    monkeypatch.setattr(evaluation, "_by_pycocotools", lambda *a: by_pycocotools(*a) | {"APs": 1.0})
    with pytest.raises(RuntimeError, match=r"bbox: our scores and those of pycocotools differ: APs [\d.]+ and 1.0"):
        benchmark.main(["evaluation", "--quick"])


def test_loading(tmp_path: Path) -> None:
    results, text = measure(tmp_path, "loading", "--repeats", "1")
    assert {row["work"] for row in results["rows"]} == set(loading._WORK)
    assert all(row["images_s"] > 0 for row in results["rows"]) and "masks as bitmaps" in text


@pytest.mark.slow
def test_startup(tmp_path: Path) -> None:
    results, text = measure(tmp_path, "startup", "--repeats", "1")
    seconds = {row["work"]: row["seconds"] for row in results["rows"] if row["engine"] == "native"}
    assert seconds[startup.WHOLE] > seconds["import"] + seconds["build"] + seconds["first step"] > 0.1
    assert 0 < seconds[startup.HELP] < seconds["import"] and "--help" in text


def test_pyramids(tmp_path: Path) -> None:
    results, text = measure(tmp_path, "pyramids", "--repeats", "1", "--pyramids", "sni", "bifpn")
    found = {(row["pyramid"], row["mode"]): row for row in results["rows"]}
    assert set(found) == {(name, mode) for name in ("fpn", "sni", "bifpn") for mode in pyramids.MODES}
    for mode in pyramids.MODES:
        assert found["sni", mode]["gflop"] == found["fpn", mode]["gflop"] > 0  # interpolation does not count
    for name in ("fpn", "sni", "bifpn"):
        assert found[name, "training"]["gflop"] == pytest.approx(3 * found[name, "forward"]["gflop"], rel=0.01)
    assert "| fpn " in text and text.count("1.00x") >= 4


def test_upsampling(tmp_path: Path) -> None:
    results, text = measure(tmp_path, "upsampling", "--repeats", "1", "--levels", "2")
    assert len(groups(results["rows"], "dtype", "layout")) == 4 and text.count("p2 has 2 x 8 x 9 x 10") == 4
    rows = {row["kind"]: row for row in results["rows"] if (row["dtype"], row["layout"]) == ("float32", "contiguous")}
    assert list(rows) == [*upsampling.KINDS, "interpolate, *, +"]
    assert rows["nearest"]["forward_ratio"] == rows["nearest"]["backward_ratio"] == 1
    assert rows["nearest"]["parameters"] == 0 and rows["deconv"]["parameters"] == 16 * 8**2 + 8
    # The fused step allocates its result alone, and the plain step makes the upsampled map too.
    assert rows["sni"]["forward_mib"] < rows["interpolate, *, +"]["forward_mib"]


@pytest.mark.slow
def test_all_parts_and_showing_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables that `show` writes to a page are those of the run itself. Small parts stand for all."""
    lines = [["loading", "--repeats", "1", "--quick"], ["pyramids", "--pyramids", "sni", "--quick"]]
    monkeypatch.setattr(command, "_all", lambda quick: lines)
    pages = [tmp_path / "first.md", tmp_path / "second.md"]
    for page in pages:
        page.write_text(PAGE.format("loading") + PAGE.format("pyramids"), encoding="utf-8")
    file = str(tmp_path / "all.json")
    assert benchmark.main(["all", "--quick", "--json", file, "--markdown", str(pages[0])]) == 0
    assert benchmark.main(["show", file, "--markdown", str(pages[1])]) == 0
    assert pages[0].read_text(encoding="utf-8") == pages[1].read_text(encoding="utf-8")


def test_a_part_leaves_the_number_of_threads_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(upsampling, "run", lambda args: torch.set_num_threads(1) or {"rows": []})
    run = command._measure(argparse.Namespace(part="upsampling", quick=True), ["upsampling"])
    assert torch.get_num_threads() == 2 and "2 torch threads" in run["about"]["CPU"]


def test_all_names_every_part_once_or_more() -> None:
    assert {line[0] for line in command._all(quick=True)} == set(command.PARTS)
    assert {*command.PARTS, "all", "show"} == set(benchmark.PARTS)
    for part, *flags in command._all(quick=False):
        parser = CommandLineParser()
        command.add_arguments(parser, part)
        assert not parser.parse_args(flags).quick
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for part in command.PARTS:
        assert page.count(f"<!-- benchmark: {part} -->\n") == page.count(f"<!-- end of benchmark: {part} -->\n") == 1


def test_busy_cores_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    readings = iter([(0.0, 0.0, 0.0), (10.0 * cores, 0.0, 10.0)])
    monkeypatch.setattr("benchmarks.machine.Neighbours._read", staticmethod(lambda: next(readings)))
    rows: list[dict[str, Any]] = []
    with watch_load(rows):
        rows.append({"value": 1})
    assert rows[0]["reliable"] is False and rows[0]["cores_used_by_others"] == cores
    assert mark("1.0 s", rows[0]) == "1.0 s †" and mark("1.0 s", rows[0] | {"reliable": True}) == "1.0 s"


def test_help_needs_no_torch() -> None:
    words = "import sys, benchmark\ntry: benchmark.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "minutes" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["upsampling", "--kinds", "nearest", "carfae"], "--kinds: unknown value 'carfae'; did you mean 'carafe'?"),
        (["detector", "--size", "800"], "--size 800: expected HEIGHTxWIDTH"),
        (["detector", "--import", "nowhere.py"], "--import nowhere.py: there is no such file"),
        (["--config-file", "MODEL.MASK_ON", "True"], "--config-file: expected a name that ends with .yaml"),
        (["--config-file", "configs/nowhere.yaml"], "config file not found"),
        (["show", "nowhere.json"], "nowhere.json: file does not exist"),
        (["show", str(ROOT / "pyproject.toml")], "expected the results of a benchmark, which --json writes"),
        (["loading", "--quick", "--repeats", "1", "--markdown", "docs/nowhere.md"], "docs/nowhere.md does not exist"),
        (["loading", "--quick", "--repeats", "1", "--markdown", str(ROOT / "README.md")], "lacks the lines"),
        (
            ["loading", "--quick", "--repeats", "1", "--picture", "picture.gif"],
            "--picture picture.gif: expected a name",
        ),
    ],
)
def test_mistakes(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("detector", "pyramids", "upsampling"):
        assert benchmark.main([part, "--device", "cuda"]) == 2
        assert "--device cuda: PyTorch finds no GPU here" in capsys.readouterr().err


def test_a_missing_engine_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "installed", lambda: ["native", "torchvision"])
    assert benchmark.main(["--quick", "--engines", "native", "detectron2", "--config-file", CONFIG]) == 2
    assert "--engines: detectron2 is not installed; expected some of native, torchvision" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--repeats", "--threads", "--batch"])
def test_numbers_are_at_least_one(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([flag, "0"])
    assert f"{flag}: expected a whole number of at least 1, found '0'" in capsys.readouterr().err


def test_an_unknown_part_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["detektor"])
    assert "did you mean 'detector'" in capsys.readouterr().err
