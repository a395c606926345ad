"""Tests of `results.csv`: a row for each evaluation, over resumes, broken files and new metrics."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer
from sn2fpn.engine.results_file import Clock, ResultsWriter


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_evaluation_and_a_column_for_each_metric(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    writer = ResultsWriter(path)
    writer.write(9, 0.5, 12.34, {"bbox/AP": 10.125, "bbox/APs": float("nan")})
    writer.write(19, None, 30.0, {"bbox/AP": 11.0})
    writer.write(19, None, 31.0, {"bbox_TTA/AP": 12.0})  # the same evaluation goes on
    assert _rows(path) == [
        {
            "iteration": "9",
            "epoch": "0.5",
            "seconds": "12.3",
            "bbox/AP": "10.125",
            "bbox/APs": "nan",
            "bbox_TTA/AP": "",
        },
        {"iteration": "19", "epoch": "", "seconds": "31.0", "bbox/AP": "11.0", "bbox/APs": "", "bbox_TTA/AP": "12.0"},
    ]


def test_a_resumed_run_keeps_what_its_checkpoint_covers(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    first = ResultsWriter(path)
    for iteration in (9, 19, 29):
        first.write(iteration, None, 1.0, {"bbox/AP": float(iteration)})
    resumed = ResultsWriter(path, start_iter=20)
    assert [row["iteration"] for row in _rows(path)] == ["9", "19"]
    resumed.write(29, None, 2.0, {"bbox/AP": 5.0})
    assert [row["bbox/AP"] for row in _rows(path)] == ["9.0", "19.0", "5.0"]
    ResultsWriter(path)  # a new run does not write into the table of an earlier one
    assert not path.exists() and len(_rows(tmp_path / "results.csv.1")) == 3


@pytest.mark.parametrize("text", ["", "\0\0", "iteration,epoch\nx,1\n9,1,2,3\n", '"', "a" * 200_000, "bbox/AP\n3\n"])
def test_a_broken_table_does_not_stop_a_resumed_run(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    ResultsWriter(path, start_iter=20).write(29, 1.0, 2.0, {"bbox/AP": 5.0})
    assert [row["iteration"] for row in _rows(path)] == ["29"]


def test_the_clock_of_a_run_goes_on(
    tiny_cfg: Callable[..., CfgNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("sn2fpn.engine.results_file.time.monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 130.0
    assert clock.seconds == 30.0
    resumed = Clock()
    resumed.load_state_dict(clock.state_dict())
    now[0] = 135.5
    assert resumed.seconds == 35.5
    for row, expected in ((20.0, 35.5), (50.0, 50.0)):  # a killed run may have written a row after its last checkpoint
        resumed.forward_to(row)
        assert resumed.seconds == expected
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 1})
    register_custom(cfg.DATASETS.CUSTOM)
    for iterations in (1, 2):
        cfg.SOLVER.MAX_ITER = iterations
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        now[0] += 1000.0 * iterations
        trainer.train()
    first, second = _rows(tmp_path / "out/results.csv")
    assert (first["seconds"], second["seconds"]) == ("1000.0", "3000.0")
    assert (first["epoch"], second["epoch"]) == ("0.25", "0.5")  # 2 of 8 images in a step
    assert torch.load(tmp_path / "out/model_final.pth", weights_only=True)["clock"] == 3000.0
