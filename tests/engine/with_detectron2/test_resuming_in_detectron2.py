"""Tests of the checkpoints of Detectron2's engine: which are kept, and how runs that were stopped go on."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.errors import UserError
from sn2fpn.program import STOP_SIGNALS, Interrupted

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

from detectron2.engine import AMPTrainer  # noqa: E402
from their_trainer import Command, their_trainer  # noqa: E402

from sn2fpn.engine import detectron2 as engine  # noqa: E402
from sn2fpn.engine.detectron2.checkpoints import choose_last  # noqa: E402


def test_a_resumed_run_of_detectron2_doubles_no_row_and_outlives_a_damaged_file(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = dict(DATASETS__TEST=(), SOLVER__CHECKPOINT_PERIOD=20)
    args = command("sni", SOLVER__MAX_ITER=41, **keys)
    engine.run(engine.load_config(args), args)
    out = tmp_path / "out"
    saved = torch.load(out / "model_0000019.pth", weights_only=True)
    assert len(saved["class_names"]) == 6 and "BASE_LR: 0.02" in saved["config"]
    for name in ("model_final.pth", "model_0000039.pth"):
        (out / name).write_bytes((out / name).read_bytes()[:-100])
    args = command("sni", "--resume", SOLVER__MAX_ITER=42, SOLVER__BASE_LR=0.01, **keys)
    engine.run(engine.load_config(args), args)
    log = (out / "log.txt").read_text()
    assert f"continues from {out / 'model_0000019.pth'}" in log and "SOLVER.BASE_LR: 0.02 -> 0.01" in log
    rows = [json.loads(line)["iteration"] for line in (out / "metrics.json").read_text().splitlines()]
    assert rows == [19, 39, 41]
    args = command("sni", SOLVER__MAX_ITER=1, **keys)
    engine.run(engine.load_config(args), args)
    assert (out / "earlier_1" / "model_0000019.pth").is_file() and not (out / "model_0000019.pth").exists()


def test_metrics_of_a_run_without_a_checkpoint_are_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"iteration": 19}\n')
    choose_last(str(tmp_path), train=False)
    assert not (tmp_path / "metrics.json.1").exists()
    choose_last(str(tmp_path), train=True)
    assert (tmp_path / "metrics.json").read_text() == ""
    assert (tmp_path / "metrics.json.1").read_text() == '{"iteration": 19}\n'


def test_mixed_precision_may_begin_at_a_resume() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = object.__new__(engine.Trainer)
    trainer._hooks = []
    trainer._trainer = AMPTrainer(model, [], optimizer, grad_scaler=torch.amp.GradScaler("cpu"))
    trainer.load_state_dict({"iteration": 3, "_trainer": {"iteration": 3, "optimizer": optimizer.state_dict()}})
    assert trainer._trainer.iter == 3


def test_a_resumed_run_of_detectron2_does_not_need_its_first_weights(command: Command, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"DATASETS.TEST": (), "MODEL.WEIGHTS": ""}
    args = command("sni", SOLVER__MAX_ITER=1, **keys)
    engine.run(engine.load_config(args), args)
    first = (tmp_path / "out/model_final.pth").rename(tmp_path / "first.pth")
    (tmp_path / "out/last_checkpoint").unlink()
    keys["MODEL.WEIGHTS"] = str(first)
    args = command("sni", SOLVER__MAX_ITER=1, **keys)
    engine.run(engine.load_config(args), args)
    first.unlink()
    args = command("sni", "--resume", SOLVER__MAX_ITER=2, **keys)
    engine.run(engine.load_config(args), args)
    last = tmp_path / "out/model_final.pth"
    assert torch.load(last, weights_only=True)["iteration"] == 1
    keys["DATASETS.TEST"] = ("tiny_val",)
    args = command("sni", "--eval-only", "--resume", **keys)
    assert "bbox" in engine.run(engine.load_config(args), args)
    saved = torch.load(last, weights_only=True)
    torch.save(saved | {"class_names": saved["class_names"][::-1]}, last)
    with pytest.raises(UserError, match=rf"^{last}: class 0 is .* in data set 'tiny_val'.*--allow-partial"):
        engine.run(engine.load_config(args), args)


def test_detectron2_keeps_the_newest_checkpoints(command: Command, tmp_path: Path) -> None:
    keys = dict(DATASETS__TEST=(), SOLVER__CHECKPOINT_PERIOD=1, SOLVER__CHECKPOINTS_TO_KEEP=2)
    args = command("sni", SOLVER__MAX_ITER=5, **keys)
    engine.run(engine.load_config(args), args)
    names = sorted(p.name for p in (tmp_path / "out").glob("*.pth"))
    assert names == ["model_0000003.pth", "model_0000004.pth", "model_final.pth"]


def test_detectron2_keeps_the_best_checkpoint_also_over_a_resume(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([10.0, 30.0, 20.0, 25.0, 31.0])
    monkeypatch.setattr(engine.Trainer, "test", lambda *_: {"bbox": {"AP": next(scores)}})
    out, found = tmp_path / "out", []
    for flags, iterations in (((), 3), (("--resume",), 4), (("--resume",), 5)):
        keys = {"TEST__BEST_METRIC": "bbox/AP", "TEST__EVAL_PERIOD": 1, "SOLVER__MAX_ITER": iterations}
        args = command("fpn", *flags, **keys)
        engine.run(engine.load_config(args), args)
        found.append(torch.load(out / "model_best.pth", weights_only=True)["iteration"])
        assert (out / "last_checkpoint").read_text().strip() == "model_final.pth"
    assert found == [1, 1, 4]
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["iteration"], row["bbox/AP"]) for row in rows] == [
        *(("0", "10.0"), ("1", "30.0"), ("2", "20.0"), ("3", "25.0"), ("4", "31.0"))
    ]
    assert [row["epoch"] for row in rows] == ["0.25", "0.5", "0.75", "1.0", "1.25"]  # 2 of 8 images in a step
    assert [float(row["seconds"]) for row in rows] == sorted(float(row["seconds"]) for row in rows)


def _at(iteration: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something during an iteration of Detectron2's trainer."""
    step = engine.Trainer.run_step

    def run_step(trainer: Any) -> None:
        if trainer.iter == iteration:
            do()
        step(trainer)

    monkeypatch.setattr(engine.Trainer, "run_step", run_step)


@pytest.mark.parametrize("grouped", [True, False])
def test_signals_and_dead_workers_save_and_end(
    grouped: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = dict(DATASETS__TEST=(), DATALOADER__NUM_WORKERS=1, DATALOADER__ASPECT_RATIO_GROUPING=grouped)

    def stop() -> None:
        for number in STOP_SIGNALS:
            os.kill(multiprocessing.active_children()[0].pid, number)
        os.kill(os.getpid(), signal.SIGUSR1)

    _at(3, stop, monkeypatch)
    args = command("sni", **keys)
    with pytest.raises(Interrupted, match=r"^Interrupted after iteration 3 by SIGUSR1; model_0000002.pth was saved"):
        engine.run(engine.load_config(args), args)
    assert torch.load(tmp_path / "out/model_0000002.pth", weights_only=True)["iteration"] == 2

    def kill() -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()

    monkeypatch.undo()
    _at(6, kill, monkeypatch)
    args = command("sni", "--resume", **keys)
    with pytest.raises(UserError, match=r"^worker 1 of 1 .*SIGKILL.*after iteration 6; model_0000005.pth was saved"):
        engine.run(engine.load_config(args), args)
    monkeypatch.undo()
    engine.run(engine.load_config(args), args)
    assert torch.load(tmp_path / "out/model_final.pth", weights_only=True)["iteration"] == 7


def test_a_signal_during_an_evaluation_ends_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = command("sni", TEST__EVAL_PERIOD=3)
    monkeypatch.setattr(engine.Trainer, "build_evaluator", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"^Interrupted after iteration 3 by SIGTERM; model_0000002.pth was saved"):
        engine.run(engine.load_config(args), args)


def test_statistics_are_averaged_before_checkpoints_and_evaluation(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr("sn2fpn.engine.detectron2.trainer.average_statistics", lambda _: done.append("averaged"))
    trainer = their_trainer(command("sni", SOLVER__CHECKPOINT_PERIOD=2, SOLVER__MAX_ITER=3, DATASETS__TEST=()))
    save = trainer.checkpointer.save
    monkeypatch.setattr(trainer.checkpointer, "save", lambda *a, **k: (done.append("saved"), save(*a, **k)))
    trainer.train()
    assert done == ["averaged", "averaged", "saved", "averaged", "saved"]
