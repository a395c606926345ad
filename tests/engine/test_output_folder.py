"""Tests of the output folder of a run: locks, earlier runs, resumed metrics, checkpoints, and disks that are full."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer, default_argument_parser, main, native
from sn2fpn.engine.folder import run_folder
from sn2fpn.engine.hooks import EMA, Checkpoints, Evaluation, Progress
from sn2fpn.engine.lazy import LazyRecipe
from sn2fpn.engine.options import RunOptions
from sn2fpn.engine.record import changes, check_same_model
from sn2fpn.engine.writers import JSONWriter, TensorBoardWriter
from sn2fpn.errors import UserError
from sn2fpn.locks import LocksUnsupportedError, only_user

MakeCfg = Callable[..., CfgNode]
ReadRows = Callable[[Path], list[dict[str, Any]]]
_ROOT = Path(__file__).parents[2]
_DOUBLED = [f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)]
"""Lines of YAML that stand for 2**40 values."""
_CONFIG = str(_ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml")


@pytest.fixture(autouse=True)
def _close_the_log() -> Iterator[None]:
    yield
    logger = logging.getLogger("sn2fpn")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def _arguments(flags: list[str], keys: dict[str, Any]) -> list[str]:
    opts = [str(x) for pair in keys.items() for x in pair]
    return ["--engine", "native", "--config-file", _CONFIG, *flags, *opts]


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def _evaluations(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `results.csv` without the seconds, after a check that these rise."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row.pop("seconds")) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    return rows


# ------------------------------------------------------------------ one run at a time


def test_a_second_run_is_refused_and_names_the_first(
    tmp_path: Path, tiny_keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tiny_keys | {"OUTPUT_DIR": tmp_path}
    weights = {"MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    with only_user(tmp_path / ".run.lock"):
        for flags, more in (([], {}), (["--resume"], {}), (["--eval-only"], weights)):
            assert main(_arguments(flags, keys | more)) == 2
            said = capsys.readouterr().err
            assert (
                f"OUTPUT_DIR: {tmp_path} is in use by another run (pid {os.getpid()} on {socket.gethostname()}" in said
            )
    assert {p.name for p in tmp_path.iterdir()} == {".run.lock"}


@pytest.mark.slow
def test_a_second_run_of_several_processes_is_refused_with_one_message(
    tmp_path: Path, tiny_keys: dict[str, Any]
) -> None:
    command = [sys.executable, str(_ROOT / "train_net.py"), *_arguments(["--num-gpus", "2"], tiny_keys)]
    with only_user(tmp_path / ".run.lock"):
        done = subprocess.run([*command, "OUTPUT_DIR", str(tmp_path)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert said.count("is in use by another run") == 1 and "Traceback" not in said


@pytest.mark.pictures
def test_a_new_run_moves_an_earlier_one_and_loses_nothing(
    tmp_path: Path, tiny_keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tiny_keys | {"OUTPUT_DIR": tmp_path, "SOLVER.MAX_ITER": 2, "DATASETS.TEST": "()"}
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".model_final.pth.ab_12xyz.part").write_bytes(b"half of a file")
    assert main(_arguments([], keys)) == 0
    assert "Removed" in capsys.readouterr().out and not list(tmp_path.glob(".*.part"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file() and p.name != "notes.txt"}
    assert main(_arguments([], keys)) == 0
    assert f"files are now in {tmp_path / 'earlier_1'}" in capsys.readouterr().out
    kept = {p.name: p.read_bytes() for p in (tmp_path / "earlier_1").iterdir()}
    assert kept == {name: content for name, content in before.items() if name != ".run.lock"}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [row["iteration"] for row in _rows(tmp_path)] == [0, 1]

    weights = {"MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    assert main(_arguments([], keys | weights)) == 2
    said = "".join(capsys.readouterr())
    assert "MODEL.WEIGHTS: " in said and "add --resume" in said
    assert main(_arguments(["--resume"], keys | {"SOLVER.MAX_ITER": 4})) == 0
    assert [row["iteration"] for row in _rows(tmp_path)] == [0, 1, 3]


def test_a_new_run_that_fails_at_its_start_leaves_the_earlier_one_in_place(
    tmp_path: Path, tiny_keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tiny_keys | {"OUTPUT_DIR": tmp_path, "SOLVER.MAX_ITER": 2}
    assert main(_arguments([], keys)) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("[!.]*") if p.is_file()}
    assert main(_arguments([], keys | {"MODEL.ROI_HEADS.NUM_CLASSES": 5})) == 2
    said = "".join(capsys.readouterr())
    assert "MODEL.ROI_HEADS.NUM_CLASSES" in said and f"files of the earlier run are in {tmp_path} again" in said
    assert {p: p.read_bytes() for p in tmp_path.rglob("[!.]*") if p.is_file()} == before
    assert main(_arguments(["--resume"], keys | {"SOLVER.MAX_ITER": 3})) == 0
    assert _rows(tmp_path)[-1]["iteration"] == 2


def _fail_in_the_folder_of_an_earlier_run(out: Path) -> None:
    """Fail as a run does after it has begun to write into a folder that an earlier run has left its files in."""
    for name in ("model_final.pth", "wandb/earlier"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("earlier")
    args = argparse.Namespace(resume=False, eval_only=False)
    with pytest.raises(ZeroDivisionError), run_folder(RunOptions(output_dir=str(out)), args):
        (out / "wandb").mkdir()
        (out / "wandb/failed").write_text("failed")
        raise ZeroDivisionError


def test_files_of_an_earlier_run_take_the_place_of_the_failed_runs_folders(tmp_path: Path) -> None:
    _fail_in_the_folder_of_an_earlier_run(tmp_path)
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("[!.]*") if p.is_file()}
    assert found == {"model_final.pth", "wandb/earlier"} and not (tmp_path / "earlier_1").exists()


def test_files_that_cannot_be_moved_back_do_not_hide_the_error_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, _: Path) -> None:
        raise PermissionError(f"{self} is in use")

    monkeypatch.setattr(Path, "replace", refuse)
    with caplog.at_level(logging.ERROR, "sn2fpn"):
        _fail_in_the_folder_of_an_earlier_run(tmp_path)
    assert f"Files of the earlier run are still in {tmp_path / 'earlier_1'}" in caplog.text


def test_a_trainer_without_the_command_line_keeps_earlier_metrics(tmp_path: Path) -> None:
    for _ in range(3):
        writer = JSONWriter(tmp_path / "metrics.json", 0)
        writer.write(0, {"total_loss": 1.0})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "metrics.json.1", "metrics.json.2"]


# ------------------------------------------------------------------ resuming


def _trainer(cfg: CfgNode, resume: bool = False) -> Trainer:
    register_custom(cfg.DATASETS.CUSTOM)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    trainer = Trainer(cfg)
    for hook in trainer.hooks:
        if isinstance(hook, Progress):
            hook._period = 2
    trainer.resume_or_load(resume)
    return trainer


class _Killed(BaseException):
    """Stands for SIGKILL at a certain place."""


def _kill_in(trainer: Trainer, kind: type, method: str, iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(kind, method)

    def stop(self: Any, *args: Any, **more: Any) -> Any:
        if trainer.iter == iteration:
            raise _Killed
        return real(self, *args, **more)

    monkeypatch.setattr(kind, method, stop)
    with pytest.raises(_Killed):
        trainer.train()
    monkeypatch.undo()


_RESUMED = {
    "SEED": 3,
    "SOLVER.MAX_ITER": 8,
    "SOLVER.CHECKPOINT_PERIOD": 4,
    "TEST.EVAL_PERIOD": 4,
    "TEST.BEST_METRIC": "bbox/AP",
}


@pytest.fixture(scope="module")
def straight(tiny_keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    cfg = get_cfg()
    cfg.merge_from_file(_CONFIG)
    keys = tiny_keys | _RESUMED | {"OUTPUT_DIR": str(folder)}
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    _trainer(cfg).train()
    return folder


@pytest.mark.parametrize(
    ("where", "iteration"),
    [
        ((Checkpoints, "after_step"), 4),  # after a row that no checkpoint covers
        ((Evaluation, "_run"), 3),  # between a checkpoint and its evaluation
        ((Progress, "after_step"), 3),  # between an evaluation and its row
        ((JSONWriter, "write"), 3),  # between its rows in results.csv and metrics.json
        pytest.param((Evaluation, "_run"), 7, marks=pytest.mark.slow),  # in the last evaluation
        pytest.param((Checkpoints, "after_train"), 7, marks=pytest.mark.slow),
    ],
)
def test_no_row_is_lost_or_doubled_wherever_a_run_is_killed(
    where: tuple[type, str],
    iteration: int,
    straight: Path,
    tiny_cfg: MakeCfg,
    lasting_rows: ReadRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = tmp_path / "cut"
    cfg = tiny_cfg(_RESUMED | {"OUTPUT_DIR": str(cut)})
    _kill_in(_trainer(cfg), *where, iteration, monkeypatch)
    with (cut / "metrics.json").open("a") as file:
        file.write('{"iteration": 5, "total_lo')  # the half of a row
    _trainer(cfg, resume=True).train()
    rows = _rows(cut)
    assert [row["iteration"] for row in rows] == [0, 1, 3, 5, 7]
    assert lasting_rows(cut) == lasting_rows(straight)  # bit by bit, also the values that are smoothed over a window
    assert "bbox/AP" in rows[2] and "bbox/AP" in rows[4]
    assert (cut / "best_metric.json").read_text() == (straight / "best_metric.json").read_text()
    tables = [_evaluations(folder) for folder in (straight, cut)]
    assert [row["iteration"] for row in tables[0]] == ["3", "7"] and tables[0] == tables[1]


def test_a_finished_run_can_be_resumed_without_new_rows(
    tiny_cfg: MakeCfg, lasting_rows: ReadRows, tmp_path: Path
) -> None:
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 2})
    _trainer(cfg).train()
    before = lasting_rows(tmp_path / "out")
    _trainer(cfg, resume=True).train()
    after = lasting_rows(tmp_path / "out")
    assert [row["iteration"] for row in after] == [0, 1]
    assert after == before and "bbox/AP" in after[1]


def test_every_evaluation_has_its_own_row(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    trainer = _trainer(tiny_cfg({"SOLVER.MAX_ITER": 6, "TEST.EVAL_PERIOD": 3}))
    for hook in trainer.hooks:
        if isinstance(hook, Progress):
            hook._period = 20
    trainer.train()
    assert [(r["iteration"], "bbox/AP" in r) for r in _rows(tmp_path / "out")] == [(0, False), (2, True), (5, True)]


def test_a_resumed_run_says_what_changed(tiny_cfg: MakeCfg, caplog: pytest.LogCaptureFixture) -> None:
    keys = {"SOLVER.MAX_ITER": 1, "DATASETS.TEST": []}
    _trainer(tiny_cfg(keys)).train()
    _trainer(tiny_cfg(keys | {"DATALOADER.NUM_WORKERS": 2, "SOLVER.CHECKPOINT_PERIOD": 7}), resume=True)
    assert "configuration is not that" not in caplog.text
    _trainer(tiny_cfg(keys | {"SOLVER.BASE_LR": 0.5, "SOLVER.IMS_PER_BATCH": 4, "SEED": 9}), resume=True)
    lines = next(r.getMessage() for r in caplog.records if "configuration is not that" in r.getMessage()).splitlines()
    assert lines[1:4] == ["  SEED: 1 -> 9", "  SOLVER.BASE_LR: 0.02 -> 0.5", "  SOLVER.IMS_PER_BATCH: 2 -> 4"]
    assert "the seed and the optimizer's settings other than the learning rate go on as in the checkpoint" in lines[4]


def test_changes_of_configurations() -> None:
    old = "a: {b: 1, c: [1, 2]}\nf: <function <lambda> at 0x7f01>\ngone: x"
    new = "a: {b: 2, c: [1, 2]}\nf: <function <lambda> at 0x8a22>\nmore: {}"
    assert changes(old, new) == [("a.b", 1, 2), ("gone", "x", "(none)"), ("more", "(none)", {})]


@pytest.mark.parametrize("trained", ["a: [1", f"a0: &a0 [1]\n{''.join(_DOUBLED)}"], ids=["malformed", "aliases"])
def test_a_configuration_in_a_checkpoint_that_cannot_be_read_is_one_message(trained: str) -> None:
    with pytest.raises(UserError, match=r"^path: m\.pth: the configuration in the checkpoint cannot be read: "):
        check_same_model(trained, "a: 1", "m.pth")


@pytest.mark.parametrize(
    ("trained", "now", "same"),
    [
        ("MODEL: {RESNETS: {NORM: BN}}", "MODEL: {RESNETS: {NORM: FrozenBN}}", True),
        ("MODEL: {RESNETS: {NORM: GN}}", "MODEL: {RESNETS: {NORM: FrozenBN}}", False),  # with weights of equal names
        ("MODEL: {FPN: {NORM: ''}}", "MODEL: {FPN: {NORM: BN}}", False),
        ("MODEL: {IHP: {NORM_MOMENTUM: 0.1}}", "MODEL: {IHP: {NORM_MOMENTUM: 0.03}}", True),
        ("MODEL: {ESD: {FUSE_INIT: random}}", "MODEL: {ESD: {FUSE_INIT: average}}", True),
        ("MODEL: {WEIGHTS: a.pth}", "MODEL: {WEIGHTS: b.pth}", True),
        (
            "model: {roi_heads: {box_coder: {weights: [1, 1]}}}",
            "model: {roi_heads: {box_coder: {weights: [2, 2]}}}",
            False,
        ),
    ],
)
def test_the_configuration_tells_models_apart_that_have_the_same_weights(trained: str, now: str, same: bool) -> None:
    with (
        nullcontext() if same else pytest.raises(UserError, match=r"m\.pth was trained as another model: (MODEL|model)")
    ):
        check_same_model(trained, now, "m.pth")


def test_the_last_evaluation_follows_the_last_checkpoint(
    tiny_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch, lasting_rows: ReadRows
) -> None:
    """An evaluation may need more memory or time than there is, and must not cost what was trained."""
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 4, "TEST.EVAL_PERIOD": 2})
    trainer = _trainer(cfg)
    _kill_in(trainer, Evaluation, "_run", 3, monkeypatch)
    out = Path(cfg.OUTPUT_DIR)
    assert (out / "last_checkpoint").read_text() == "model_final.pth" and (out / "model_final.pth").is_file()
    assert _trainer(cfg, resume=True).train()["tiny_val"]["bbox"]
    assert [(row["iteration"], "bbox/AP" in row) for row in lasting_rows(out)][-1] == (3, True)


def test_a_training_sets_the_results_of_an_evaluation_aside(tmp_path: Path) -> None:
    results = tmp_path / "inference/tiny_val/results.json"
    results.parent.mkdir(parents=True)
    results.write_text("{}")
    leftovers = [results.parent / ".x.abcdefgh.part", tmp_path / "inference/.y.abcdefgh.part"]
    for file in leftovers:
        file.touch()
    with run_folder(RunOptions(output_dir=str(tmp_path)), argparse.Namespace(resume=False, eval_only=False)):
        assert not results.exists() and not any(file.exists() for file in leftovers)
        assert (tmp_path / "earlier_1/inference/tiny_val/results.json").read_text() == "{}"
        (tmp_path / "model_final.pth").write_text("of the training")


def test_initial_weights_in_the_own_folder_are_found_by_their_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model_final.pth").write_text("of the earlier run")
    options = RunOptions(output_dir=str(tmp_path / "run"), weights="~/run/model_final.pth")
    args = argparse.Namespace(resume=False, eval_only=False)
    with (
        pytest.raises(UserError, match=r"~/run/model_final\.pth belongs to the earlier run"),
        run_folder(options, args),
    ):
        pass


def test_a_moving_average_that_starts_at_a_resume(tiny_cfg: MakeCfg, caplog: pytest.LogCaptureFixture) -> None:
    _trainer(tiny_cfg({"SOLVER.MAX_ITER": 3, "DATASETS.TEST": []})).train()
    keys = {"SOLVER.MAX_ITER": 3, "DATASETS.TEST": [], "SOLVER.EMA.ENABLED": True}
    trainer = _trainer(tiny_cfg(keys), resume=True)
    loaded = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.train()
    (ema,) = (hook for hook in trainer.hooks if isinstance(hook, EMA))
    assert all(torch.equal(ema.average[k], v) for k, v in loaded.items())
    assert "average starts at iteration 3 from the weights of the checkpoint" in caplog.text


def test_without_locks_the_files_that_another_run_is_writing_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise LocksUnsupportedError("no locks")

    new, old = (tmp_path / f".model_final.pth.{name}.part" for name in ("abcdefgh", "hgfedcba"))
    for path in (new, old):
        path.touch()
    os.utime(old, (0, 0))
    monkeypatch.setattr("sn2fpn.engine.folder.only_user", refuse)
    args = argparse.Namespace(resume=True, eval_only=False)
    with run_folder(RunOptions(output_dir=str(tmp_path)), args) as notes:
        assert new.exists() and not old.exists()
    assert any("has no locks" in note for note in notes)


def test_a_scaled_schedule_is_resumed_by_as_many_processes_only(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    keys = {"SOLVER.MAX_ITER": 2, "DATASETS.TEST": [], "SOLVER.REFERENCE_WORLD_SIZE": 1}
    _trainer(tiny_cfg(keys)).train()
    assert _trainer(tiny_cfg(keys), resume=True).start_iter == 2
    file = tmp_path / "out/model_final.pth"
    saved = torch.load(file, weights_only=True)
    torch.save(saved | {"processes": 8}, file)
    problem = r"had 8 processes and is resumed with 1, .*SOLVER\.REFERENCE_WORLD_SIZE .* 2 iterations"
    expected = rf"{file}: .*{problem}.*Resume with 8"
    with pytest.raises(UserError, match=expected):
        _trainer(tiny_cfg(keys), resume=True)
    assert _trainer(tiny_cfg(keys | {"SOLVER.REFERENCE_WORLD_SIZE": 0}), resume=True).start_iter == 2
    torch.save({k: v for k, v in saved.items() if k != "processes"}, file)  # as earlier versions wrote them
    assert _trainer(tiny_cfg(keys), resume=True).start_iter == 2


# ------------------------------------------------------------------ checkpoints


def test_checkpoints_name_the_classes(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    _trainer(tiny_cfg({"SOLVER.MAX_ITER": 1, "DATASETS.TEST": []})).train()
    saved = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert len(saved["class_names"]) == 6 and {"circle", "square"} <= set(saved["class_names"])


def test_by_default_a_long_run_keeps_three_checkpoints(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    keys = {"SOLVER.MAX_ITER": 9, "SOLVER.CHECKPOINT_PERIOD": 1, "DATASETS.TEST": []}
    trainer = _trainer(tiny_cfg(keys))
    _trainer(tiny_cfg(keys)).train()
    assert trainer.options.checkpoints_to_keep == 3
    names = sorted(p.name for p in (tmp_path / "out").glob("*.pth"))
    assert names == ["model_0000005.pth", "model_0000006.pth", "model_0000007.pth", "model_final.pth"]


def test_evaluating_another_models_checkpoint_is_refused_unless_it_is_allowed(
    tiny_cfg: MakeCfg, tiny_keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _trainer(tiny_cfg({"SOLVER.MAX_ITER": 1, "DATASETS.TEST": []})).train()
    weights = {"MODEL.WEIGHTS": tmp_path / "out/model_final.pth", "OUTPUT_DIR": tmp_path / "new/evaluated"}
    other = {"MODEL.BACKBONE.NAME": "build_sn2_pafpn_backbone"}
    assert main(_arguments(["--eval-only"], tiny_keys | weights | other)) == 2
    said = capsys.readouterr().out
    for word in ("MODEL.WEIGHTS", "another model", "not in the file", "--allow-partial"):
        assert word in said
    assert not (tmp_path / "new").exists()
    assert main(_arguments(["--eval-only", "--allow-partial"], tiny_keys | weights | other)) == 0
    assert (tmp_path / "new/evaluated/inference/tiny_val/results.json").is_file()
    (tmp_path / "mine").mkdir()
    folder = {"OUTPUT_DIR": tmp_path / "mine"}
    assert main(_arguments(["--eval-only"], tiny_keys | weights | other | folder)) == 2
    assert (tmp_path / "mine/log.txt").is_file()  # a folder that was there before is not removed


@pytest.mark.pictures
def test_evaluating_another_pyramid_with_the_same_names_is_refused_and_leaves_the_training_as_it_was(
    tiny_cfg: MakeCfg, tiny_keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = _trainer(tiny_cfg({"SOLVER.MAX_ITER": 1, "DATASETS.TEST": []}))
    trainer.train()
    out = tmp_path / "out"
    for name in ("config.yaml", "predictions.png"):
        (out / name).write_text("of the training")
    keys = tiny_keys | {"MODEL.WEIGHTS": out / "model_final.pth", "OUTPUT_DIR": out}
    trained = trainer.recipe.cfg.MODEL.BACKBONE.NAME
    (other,) = {"build_sn2_sni_backbone", "build_sn2_fpn_backbone"} - {trained}
    assert main(_arguments(["--eval-only"], keys | {"MODEL.BACKBONE.NAME": other})) == 2
    said = capsys.readouterr().out
    assert f"trained as another model: MODEL.BACKBONE.NAME was {trained} and is {other}" in said
    assert "--allow-partial" in said
    evaluation = {"MODEL.BACKBONE.NAME": trained, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.1}
    assert main(_arguments(["--eval-only"], keys | evaluation)) == 0
    assert "an earlier evaluation" not in capsys.readouterr().out
    assert main(_arguments(["--eval-only"], keys | evaluation)) == 0
    held = f"{out / 'inference'} holds the results of an earlier evaluation (tiny_val); those of the same data sets are"
    assert held in capsys.readouterr().out
    assert all((out / name).read_text() == "of the training" for name in ("config.yaml", "predictions.png"))
    assert (out / "inference/predictions.png").stat().st_size > 1000
    assert "SCORE_THRESH_TEST: 0.1" in (out / "inference/config.yaml").read_text()


def test_an_evaluation_with_resume_is_that_of_the_last_checkpoint(
    tiny_keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, loaded = tmp_path / "out", []

    def load(_: nn.Module, path: str, *__: Any, **___: Any) -> None:
        loaded.append(Path(path).name)
        raise UserError("it was loaded")

    monkeypatch.setattr(native, "load_trained", load)
    keys = tiny_keys | {"OUTPUT_DIR": out, "MODEL.WEIGHTS": "other.pth"}
    assert main(_arguments(["--eval-only", "--resume"], keys)) == 2  # there is no checkpoint yet
    out.mkdir(exist_ok=True)
    Checkpointer(nn.Linear(1, 1), out).save("model_0000004", iteration=4)
    for flags, weights in ((["--eval-only"], "other.pth"), (["--eval-only", "--resume"], "")):
        assert main(_arguments(flags, keys | {"MODEL.WEIGHTS": weights or "''"})) == 2
    assert loaded == ["other.pth", "other.pth", "model_0000004.pth"]


def test_another_pyramid_with_the_same_names_is_not_resumed(
    tiny_cfg: MakeCfg, tiny_keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = _trainer(tiny_cfg({"SOLVER.MAX_ITER": 1, "DATASETS.TEST": []}))
    trainer.train()
    trained = trainer.recipe.cfg.MODEL.BACKBONE.NAME
    (other,) = {"build_sn2_sni_backbone", "build_sn2_fpn_backbone"} - {trained}
    keys = tiny_keys | {"MODEL.BACKBONE.NAME": other, "SOLVER.MAX_ITER": 3, "OUTPUT_DIR": tmp_path / "out"}
    assert main(_arguments(["--resume"], keys)) == 2
    said = capsys.readouterr().out
    assert f"checkpoint is that of another model: MODEL.BACKBONE.NAME was {trained} and is {other}" in said


def test_a_folder_that_cannot_be_removed_does_not_hide_why_an_evaluation_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(f"{self} is in use")

    monkeypatch.setattr(Path, "rmdir", refuse)
    options, args = RunOptions(output_dir=str(tmp_path / "new")), argparse.Namespace(resume=False, eval_only=True)
    refused = pytest.raises(UserError, match="no such data set")
    with caplog.at_level(logging.ERROR, "sn2fpn"), refused, run_folder(options, args):
        raise UserError("no such data set")
    assert f"The folder {tmp_path / 'new'}, which was made for this run, cannot be removed" in caplog.text


def test_the_home_folder_may_be_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    args = default_argument_parser().parse_args(["--config-file", _CONFIG, "OUTPUT_DIR", "~/runs"])
    assert native.load_config(args).OUTPUT_DIR == "/somewhere/runs"
    recipe = LazyRecipe(str(_ROOT / "configs/lazy/quick_shapes.py"), ["train.output_dir=~/runs"])
    assert recipe.options.output_dir == recipe.cfg.train.output_dir == "/somewhere/runs"


@pytest.mark.parametrize("folder", ["", " "])
def test_a_folder_without_a_name_is_refused(folder: str, tiny_keys: dict[str, Any], capsys: Any) -> None:
    assert main(_arguments([], tiny_keys | {"OUTPUT_DIR": folder})) == 2
    assert "OUTPUT_DIR: expected the name of a folder, found" in capsys.readouterr().err


# ------------------------------------------------------------------ full disks


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3_000, 2_000_000])  # in config.yaml at the start, in the checkpoint
def test_a_full_disk_ends_a_run_with_one_message(limit: int, tmp_path: Path, tiny_keys: dict[str, Any]) -> None:
    (tmp_path / "model_best.pth").write_bytes(b"")
    keys = tiny_keys | {"OUTPUT_DIR": tmp_path, "DATASETS.TEST": "()", "SOLVER.MAX_ITER": 1}
    done = subprocess.run(
        [sys.executable, str(_ROOT / "train_net.py"), *_arguments([], keys)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    name = "config.yaml" if limit < 10_000 else "model_final.pth"
    assert f"cannot write {tmp_path / name}: file too large. An older file of this name is intact" in said
    assert "Traceback" not in said and "unexpected pos" not in said
    assert not list(tmp_path.glob(".*.part"))


def test_writers_name_the_file_and_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    rows = JSONWriter(tmp_path / "metrics.json")
    rows._path = full
    with pytest.raises(UserError, match="cannot write /dev/full: no space left on device"):
        rows.write(0, {"total_loss": 1.0})
    events = TensorBoardWriter(tmp_path)
    with full.open("wb", buffering=0) as file:
        monkeypatch.setattr(events._records, "_writer", file)
        with pytest.raises(UserError, match=r"cannot write .*tfevents.*: no space left on device"):
            events.write(0, {"total_loss": 1.0})
    events.close()


def test_event_files_are_those_of_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, values in ((0, [5.0, 4.0, 3.0]), (1, [2.0, 1.0])):
        events = TensorBoardWriter(tmp_path, start)
        for i, value in enumerate(values):
            events.write(start + i, {"total_loss": value, "bbox/AP": value})
        events.close()
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in accumulator.Scalars("total_loss")] == [(0, 5.0), (1, 2.0), (2, 1.0)]
    assert accumulator.Tags()["scalars"] == ["total_loss", "bbox/AP"]
