"""Tests of the report of a GPU: steps that succeed, fail, take too long, and a rehearsal of the whole on a CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import gpu_report
from gpu_report import read_benchmark, read_steps, read_training
from sn2fpn.data.shapes import write_shapes
from sn2fpn.errors import UserError
from step_report import Step, run_steps


def _step(name: str, code: str, limit_s: int = 60, read: Any = lambda said: ("well", said)) -> Step:
    return Step(name, ["-c", code], limit_s, read, {"SN2FPN_TOLD": "so"})


def test_a_failing_step_stops_no_other_and_the_report_says_why(tmp_path: Path) -> None:
    sleeps = "import subprocess; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    steps = [
        _step("broken", "raise ValueError('the reason')"),
        _step("endless", sleeps, limit_s=1),
        _step("unreadable", "pass", read=lambda _: {}["ratio"]),
        _step("poor", "pass", read=lambda _: read_training(tmp_path / "training", 80)),
        _step("good", "import os; print('told', os.environ['SN2FPN_TOLD'])"),
    ]
    results = tmp_path / "training/inference/shapes_val/results.json"
    results.parent.mkdir(parents=True)
    results.write_text('{"bbox": {"AP50": 61.0}}')
    (tmp_path / "training/metrics.json").write_text('{"iteration": 1, "peak_memory_mib": 12.0}\n')
    started = time.perf_counter()
    assert run_steps(steps, "A report", "Notes.", {"torch": "9.9"}, tmp_path) == 1
    assert time.perf_counter() - started < 30  # the grandchild of the endless step has ended as well
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["about"] == {"torch": "9.9"}
    summaries = {step["name"]: step["summary"] for step in found["steps"]}
    assert summaries["broken"] == "exit code 1: ValueError: the reason"
    assert summaries["endless"] == "it was ended after 1 s: begun"
    assert summaries["unreadable"] == "its result cannot be read: KeyError: 'ratio'"
    assert summaries["poor"] == "AP50 61.0, at least 80 expected; peak memory 12 MiB"
    assert [step["ok"] for step in found["steps"]] == [False] * 4 + [True]
    page = (tmp_path / "report.md").read_text()
    assert (
        page.startswith("# A report\n")
        and "Notes." in page
        and "| torch" in page
        and "told so" in page
        and page.count("**failed**") == 4
    )
    assert run_steps(steps[-1:], "A report", "Notes.", {}, tmp_path) == 0


def test_the_table_of_a_benchmark(tmp_path: Path) -> None:
    def row(engine: str, seconds: float, mode: str = "inference", memory: float | None = None) -> dict[str, Any]:
        return {
            "config": "configs/faster_rcnn_R50_fpn.yaml",
            "mode": mode,
            "precision": "float16",
            "engine": engine,
            "seconds": seconds,
            "memory_mib": memory,
        }

    rows = [row("native", 0.02, memory=900), row("torchvision", 0.03), row("detectron2", 0.05), row("native", 0.1, "x")]
    file = tmp_path / "speed.json"
    file.write_text(json.dumps({"runs": [{"results": {"rows": rows}}]}))
    summary, table = read_benchmark(file)
    assert summary == "ratios of 1.50x to 1.50x"
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    engines = ["native", "torchvision", "detectron2"]
    assert lines[0][3:] == [*engines, "ratio", *(f"{engine}, peak" for engine in engines)]
    case = ["faster_rcnn_R50_fpn", "inference", "float16"]
    assert lines[2] == [*case, "20.0 ms", "30.0 ms", "50.0 ms", "1.50x", "900 MiB", "", ""]
    assert lines[3][3:7] == ["100.0 ms", "", "", ""]


def test_the_table_of_top_down_steps(tmp_path: Path) -> None:
    rows = [
        {"kind": kind, "dtype": "float32", "layout": layout, "forward_ratio": ratio + level, "backward_ratio": 1.5}
        for kind, ratio in (("nearest", 0.0), ("sni", 0.25))
        for layout in ("contiguous", "channels_last")
        for level in (1, 1, 2)
    ]
    file = tmp_path / "steps.json"
    file.write_text(json.dumps({"runs": [{"results": {"rows": rows}}]}))
    summary, table = read_steps(file)
    assert summary == "SNI takes at most 2.25x the time of nearest-neighbour interpolation"
    assert "float32, contiguous" in table and table.splitlines()[-1].count("1.25 / 1.50") == 2


def test_the_limits_of_all_steps_keep_the_promise_of_twenty_minutes(tmp_path: Path) -> None:
    steps = gpu_report.steps("cuda", False, tmp_path)
    assert sum(step.limit_s for step in steps) <= 20 * 60
    assert steps[0].name == "tests" and steps[-1].name == "training"
    for step in steps:
        file = next(word for word in step.command if word.endswith(".py") or "tests" in word)
        assert (gpu_report.ROOT / file).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main(["--output-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --device cuda: there is no GPU") and "--device cpu --quick" in said
    assert list(tmp_path.iterdir()) == []


def test_some_of_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        gpu_report, "steps", lambda *_: [_step(name, "print(1)") for name in ("tests", "speed, batch 2")]
    )
    flags = ["--device", "cpu", "--output-dir", str(tmp_path), "--only"]
    assert gpu_report.main([*flags, "speed, batch 2"]) == 0
    assert [step["name"] for step in json.loads((tmp_path / "report.json").read_text())["steps"]] == ["speed, batch 2"]
    assert gpu_report.main([*flags, "tests"]) == 0
    assert [step["name"] for step in json.loads((tmp_path / "report.json").read_text())["steps"]] == [
        "speed, batch 2",
        "tests",
    ]
    monkeypatch.setattr(gpu_report, "machine", lambda _: {"commit": "another"})
    assert gpu_report.main([*flags, "tests"]) == 2
    assert "this report is of" in (said := capsys.readouterr().err) and "--output-dir" in said
    (tmp_path / "report.json").write_text("[]")
    assert gpu_report.main([*flags, "tests"]) == 2
    assert "this is no report" in capsys.readouterr().err
    assert gpu_report.main([*flags[:-1]]) == 0  # all steps make a new report
    assert gpu_report.main([*flags, "speed"]) == 2
    assert "--only" in (said := capsys.readouterr().err) and "speed, batch 2" in said


def test_training_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        read_training(tmp_path, 0)
    assert issubclass(UserError, ValueError)


@pytest.mark.slow
def test_a_rehearsal_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the GPU run on the CPU, with the branches of a GPU; the benchmark's own tests see to its numbers."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    write_shapes(tmp_path / "data/shapes", {"train": (8, 1), "val": (4, 2)})  # a folder that exists is taken as it is
    code = gpu_report.main(["--device", "cpu", "--quick", "--output-dir", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out/report.json").read_text())
    steps = {step["name"]: step for step in found["steps"]}
    assert steps["tests"]["ok"] and "passed" in steps["tests"]["summary"], steps["tests"]
    assert steps["training"]["ok"] and steps["training"]["summary"].startswith("AP50"), steps["training"]
    assert code == 0, {name: step["summary"] for name, step in steps.items() if not step["ok"]}
    about = found["about"]
    assert about["device"] == "cpu, quick" and about["commit"] and torch.__version__.startswith(about["torch"])
