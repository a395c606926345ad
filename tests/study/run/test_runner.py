"""The runner with a stand-in for training: what it starts, skips, tries again and refuses."""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sn2fpn.engine import default_argument_parser
from sn2fpn.errors import UserError
from sn2fpn.locks import is_locked, locked
from sn2fpn.study.archive.pack import pack
from sn2fpn.study.arguments import add_run
from sn2fpn.study.folder import CellFolder, State, Status
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.report.writing import write_report
from sn2fpn.study.run import command, runner, steps, training
from sn2fpn.study.run.executor import Local
from sn2fpn.study.run.progress import Progress, estimate
from sn2fpn.study.spec.study import Study

WriteStudy = Callable[..., Path]


class InProcess(Local):
    """An executor that runs jobs as soon as they are submitted."""

    def __init__(self) -> None:
        self.slots = 1

    def submit(self, jobs: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        for job in jobs.values():
            study = Study.load(job.study_file)
            training.run_cell(study, job.cell(study), job.folder)
        there = SimpleNamespace(exists=lambda: True)
        job = SimpleNamespace(done=lambda: True, exception=lambda: None, paths=SimpleNamespace(result_pickle=there))
        return dict.fromkeys(jobs, job)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of cells that the stand-in trains, in order; those named in `trained.broken` fail.

    Those in `trained.silent` detect nothing, and leave what Detectron2 leaves then.
    """

    class Trained(list):
        broken: frozenset[str] = frozenset()
        silent: frozenset[str] = frozenset()

    names = Trained()

    def main(argv: list[str]) -> int:
        args = default_argument_parser().parse_args(argv)
        keys = dict(zip(args.opts[::2], args.opts[1::2]))
        out = Path(keys["OUTPUT_DIR"])
        name = f"{out.parent.name}/{out.name}"
        names.append(name)
        if name in names.broken:
            raise UserError("the loss is not finite")
        lines = [{"iteration": i, "total_loss": 1.0, "time": 0.5, "peak_memory_mib": 100.0 + i} for i in (0, 5)]
        if name in names.silent:
            out.mkdir(parents=True, exist_ok=True)
            lines.append({"iteration": 5, "bbox/AP": math.nan, "bbox/AP50": math.nan})
        else:
            folder = out / "inference" / ast.literal_eval(keys["DATASETS.TEST"])[0]
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"bbox": {"AP": 10.0 + len(names)}}))
        (out / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    monkeypatch.setattr(training, "main", main)
    monkeypatch.setattr(
        training,
        "fingerprint",
        lambda cfg: {"trunk": "same", "pyramid": cfg.MODEL.BACKBONE.NAME, "data order": str(cfg.SEED)},
    )
    monkeypatch.setattr(runner, "_POLL_S", 0.01)
    monkeypatch.setattr(command, "_executor", lambda *_: InProcess())
    monkeypatch.setattr(steps, "STEPS", {})
    return names


def _args(study: Path, **changes: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run(parser)
    args = parser.parse_args([str(study), "--output", str(study.parent / "out")])
    return argparse.Namespace(**vars(args) | changes)


def test_cells_are_trained_once_and_recorded(
    trained: list[str], write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study()
    assert command.main(_args(path)) == 0
    assert trained == ["fpn/seed1", "sni/seed1", "fpn/seed2", "sni/seed2"]  # seed by seed
    said = capsys.readouterr().out
    for words in (
        "sni/seed2: finished  AP 14.0",
        "4 of 4 cells finished",
        "Seed 1, 2:",
        "equal in all 2 variants: trunk, data order",
        "pyramid differs: fpn | sni",
    ):
        assert words in said
    folder = path.parent / "out/tiny"
    result = json.loads((folder / "cells/sni/seed1/result.json").read_text())
    assert result["results"] == {"tiny_study_val": {"bbox": {"AP": 12.0}}}
    assert (result["iterations"], result["train_seconds"], result["peak_memory_mib"]) == (6, 3.0, 105.0)
    cell = json.loads((folder / "cells/sni/seed1/cell.json").read_text())
    assert cell["overrides"]["SEED"] == 1
    assert cell["overrides"]["MODEL.FPN.OUT_CHANNELS"] == 16
    assert {"variant", "axes", "command", "versions", "commit", "host", "started", "fingerprint"} <= set(cell)
    assert Study.load(folder / "study.yaml").cells[0].name == "fpn/seed1"
    command.main(_args(path))
    assert len(trained) == 4


def test_a_training_with_detectron2_that_detects_nothing_has_a_result(trained: Any, write_study: WriteStudy) -> None:
    trained.silent = frozenset({"sni/seed1"})
    path = write_study(SEEDS=[1])
    assert command.main(_args(path)) == 0
    folder = path.parent / "out/tiny"
    result = json.loads((folder / "cells/sni/seed1/result.json").read_text())
    assert result["engine"] == "detectron2"
    assert result["results"] == {"tiny_study_val": {"bbox": {"AP": None, "AP50": None}}}
    results = load_results(folder)
    assert results.values("sni", "bbox/AP") == {1: 0.0} and results.values("fpn", "bbox/AP") == {1: 11.0}


def test_the_device_of_a_study_can_be_another_one(trained: Any, write_study: WriteStudy) -> None:
    path = write_study(SEEDS=[1])
    assert command.main(_args(path, device="cuda")) == 0
    folder = path.parent / "out/tiny"
    cell = json.loads((folder / "cells/sni/seed1/cell.json").read_text())
    assert cell["overrides"]["MODEL.DEVICE"] == "cuda"
    assert Study.load(folder / "study.yaml").settings["MODEL.DEVICE"] == "cuda"


def test_a_failed_cell_does_not_stop_the_others(
    trained: Any, write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study()
    trained.broken = frozenset({"sni/seed1"})
    assert command.main(_args(path)) == 1
    assert trained == ["fpn/seed1", "sni/seed1", "fpn/seed2", "sni/seed2"]
    failure = path.parent / "out/tiny/cells/sni/seed1/failure.txt"
    assert failure.read_text() == "the loss is not finite\n"
    assert f"FAILED sni/seed1: the loss is not finite\n  {failure}" in capsys.readouterr().out
    assert command.main(_args(path, retry_failed=False)) == 1
    assert len(trained) == 4
    trained.broken = frozenset()
    assert command.main(_args(path)) == 0
    assert trained[4:] == ["sni/seed1"]
    assert not failure.exists()
    first = json.loads((failure.parent / "cell.json").read_text())
    assert len(first["tries"]) == 2


def test_tuning_comes_first_and_decides(
    trained: Any, write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = {"TUNE": {"SOLVER.BASE_LR": [0.01, 0.02]}, "TUNE_SETS": ["tiny_study_train"], "SEEDS": [1]}
    path = write_study(**tune)
    trained.broken = frozenset({"sni-BASE_LR=0.02/seed0"})
    assert command.main(_args(path)) == 1
    assert trained[-1] == "fpn/seed1"  # sni waits for its tuning
    assert "fpn: BASE_LR=0.02 is the best of 2 (11.00 with BASE_LR=0.01, 12.00" in (said := capsys.readouterr().out)
    assert "FAILED sni-BASE_LR=0.02/seed0" in said and "left to others" not in said
    assert "Not trained, because a training that tries values has failed: the cells of sni" in said
    trained.broken = frozenset()
    assert command.main(_args(path)) == 0
    assert trained[5:] == ["sni-BASE_LR=0.02/seed0", "sni/seed1"]
    folder = path.parent / "out/tiny"
    assert Study.load(folder / "study.yaml").tuned == {name: {"SOLVER.BASE_LR": 0.02} for name in ("fpn", "sni")}
    overrides = json.loads((folder / "cells/sni/seed1/cell.json").read_text())["overrides"]
    assert overrides["SOLVER.BASE_LR"] == 0.02
    results = json.loads((folder / "tuning/cells/sni-BASE_LR=0.02/seed0/result.json").read_text())["results"]
    assert list(results) == ["tiny_study_train"]
    command.main(_args(path))
    assert len(trained) == 7
    command.main(_args(folder / "study.yaml", output=str(path.parent / "new")))
    assert trained[7:] == ["fpn/seed1", "sni/seed1"]  # the study file has the values that were chosen
    page = write_report(folder).read_text()
    assert "Tuned settings" in page and "BASE_LR=0.02" in page and "end of the range" in page


def test_chosen_cells_need_the_tuning_of_their_variants_alone(
    trained: Any, write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = {"TUNE": {"SOLVER.BASE_LR": [0.01, 0.02]}, "TUNE_SETS": ["tiny_study_train"]}
    path = write_study(**tune)
    assert command.main(_args(path, only=["fpn/seed1"], dry_run=True)) == 0
    assert "1 of 4 cells after 2 cells for tuning" in capsys.readouterr().out
    assert command.main(_args(path, only=["fpn/seed1"])) == 0
    assert trained == ["fpn-BASE_LR=0.01/seed0", "fpn-BASE_LR=0.02/seed0", "fpn/seed1"]
    assert command.main(_args(path, only=["sni-BASE_LR=0.02/seed0", "fpn/seed1"])) == 0
    assert trained[3:] == ["sni-BASE_LR=0.02/seed0"]
    assert command.main(_args(path)) == 0
    assert trained[4:] == ["sni-BASE_LR=0.01/seed0", "sni/seed1", "fpn/seed2", "sni/seed2"]


def test_an_unfinished_study_goes_on_from_its_archive(trained: Any, write_study: WriteStudy, tmp_path: Path) -> None:
    """Finished trainings and tuned values come with the archive; what was interrupted begins again."""
    tune = {"TUNE": {"SOLVER.BASE_LR": [0.01, 0.02]}, "TUNE_SETS": ["tiny_study_train"], "SEEDS": [1]}
    path = write_study(**tune)
    trained.broken = frozenset({"sni-BASE_LR=0.02/seed0"})
    assert command.main(_args(path)) == 1
    study = Study.load(path.parent / "out/tiny/study.yaml")
    finished = CellFolder(path.parent / "out/tiny", study.cells[0])
    finished.config.write_text(study.config(finished.cell.variant, 1).dump())  # as the engine does
    archive = pack(path.parent / "out/tiny", tmp_path / "tiny.study.zip")

    with zipfile.ZipFile(archive) as content:
        content.extractall(tmp_path / "elsewhere/tiny")
    trained.clear()
    trained.broken = frozenset()
    file = tmp_path / "elsewhere/tiny/study.yaml"
    assert command.main(_args(file, output=str(tmp_path / "elsewhere"))) == 0
    assert trained == ["sni-BASE_LR=0.02/seed0", "sni/seed1"]
    assert Study.load(file).tuned.keys() == {"fpn", "sni"}


def test_a_training_that_starts_anew_has_a_new_fingerprint(
    trained: Any, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that continues from a checkpoint keeps that of its start."""
    path = write_study(SEEDS=[1])
    trained.broken = frozenset({"fpn/seed1", "sni/seed1"})
    command.main(_args(path))
    cells = path.parent / "out/tiny/cells"
    (cells / "fpn/seed1/last_checkpoint").write_text("model_0000002.pth")
    monkeypatch.setattr(training, "fingerprint", lambda cfg: {"trunk": "of another machine"})
    command.main(_args(path))
    trunks = {
        n: json.loads((cells / n / "seed1/cell.json").read_text())["fingerprint"]["trunk"] for n in ("fpn", "sni")
    }
    assert trunks == {"fpn": "same", "sni": "of another machine"}


def test_only_some_cells(
    trained: list[str], write_study: WriteStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    monkeypatch.setattr(steps, "STEPS", {"costs": ("costs.json", lambda study, folder: measured.append(study.name))})
    path = write_study()
    assert command.main(_args(path, only=["sni/seed2", "f*/seed1"])) == 0
    assert trained == ["fpn/seed1", "sni/seed2"]
    assert "2 cells are left to others" in capsys.readouterr().out and not measured
    assert command.main(_args(path, only=["sni/seed2"], again=["costs"])) == 0
    assert measured == ["tiny"] and len(trained) == 2  # the finished cells are measured without waiting for the others
    with pytest.raises(UserError, match=r"--only snni/seed2: .*did you mean 'sni/seed2'"):
        command.main(_args(path, only=["snni/seed2"]))


def test_an_edited_study_is_not_mixed_with_its_past(trained: list[str], write_study: WriteStudy) -> None:
    path = write_study(SEEDS=[1])
    command.main(_args(path))
    study = Study.load(path)
    for cell in study.cells:  # as the engine writes it
        CellFolder(path.parent / "out/tiny", cell).config.write_text(study.config(cell.variant, 1).dump())
    assert command.main(_args(write_study(SEEDS=[1, 2], AXES={"pyramid": ["fpn", "ihp"]}))) == 0  # more and other cells
    with pytest.raises(UserError) as e:
        command.main(_args(write_study(SEEDS=[1], SET=study.settings | {"SOLVER.MAX_ITER": 9})))
    for words in ("fpn/seed1: SOLVER.MAX_ITER was 6, now 9", "sni/seed1", "NAME", "--output"):
        assert words in str(e.value)


def test_a_study_does_not_go_on_with_other_code(
    trained: Any, write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(SEEDS=[1], IMPORTS=["registers_it.py"])
    gate = path.parent / "gated_pyramid/gate.py"
    gate.parent.mkdir()
    gate.write_text("FACTOR = 1")
    (gate.parent / "__init__.py").write_text("from .gate import FACTOR")
    (path.parent / "registers_it.py").write_text("import gated_pyramid")
    assert command.main(_args(path)) == 0
    file = path.parent / "out/tiny/cells/fpn/seed1/cell.json"
    names = ["gated_pyramid/__init__.py", "gated_pyramid/gate.py", "registers_it.py"]
    assert list(json.loads(file.read_text())["imports"]) == names
    assert f"equal in all 2 variants: trunk, data order, code of {names[0]}" in capsys.readouterr().out

    gate.write_text("FACTOR = 2")
    path = write_study(SEEDS=[1, 2], IMPORTS=["registers_it.py"])
    for dry_run in (True, False):
        with pytest.raises(UserError, match=r"gated_pyramid/gate.py has changed: fpn/seed1, sni/seed1\n"):
            command.main(_args(path, dry_run=dry_run))
    assert len(trained) == 2
    gate.write_text("FACTOR = 1")
    assert command.main(_args(path)) == 0 and len(trained) == 4


def test_a_cell_does_not_start_with_code_that_has_changed_during_the_run(
    trained: Any, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(SEEDS=[1], IMPORTS=["edited.py"])
    (path.parent / "edited.py").write_text("x = 1")
    train = training.main
    monkeypatch.setattr(training, "main", lambda argv: (path.parent / "edited.py").write_text("x = 2") * train(argv))
    assert command.main(_args(path)) == 1
    failure = path.parent / "out/tiny/cells/sni/seed1/failure.txt"
    assert trained == ["fpn/seed1"] and "edited.py has changed: fpn/seed1" in failure.read_text()


def test_a_dry_run_says_what_a_run_would_do(
    trained: Any, write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = {"TUNE": {"SOLVER.BASE_LR": [0.01, 0.02]}, "TUNE_SETS": ["tiny_study_train"]}
    path = write_study(SEEDS=[1], AXES={"pyramid": ["fpn"]}, **tune)
    command.main(_args(path))
    study = Study.load(path.parent / "out/tiny/study.yaml")
    place = CellFolder(path.parent / "out/tiny", study.cells[0])
    place.config.write_text(study.config(study.variants[0], 1).dump())  # as the engine does, with the tuned value
    capsys.readouterr()

    more = {"SEEDS": [1, 2], **tune}
    assert command.main(_args(write_study(**more), dry_run=True)) == 0
    said = "4 cells (1 finished, 3 to train) after 4 cells for tuning (2 finished, 2 to train); nothing was trained"
    assert said in capsys.readouterr().out
    more["SET"] = study.settings | {"SOLVER.MAX_ITER": 9}
    with pytest.raises(UserError, match=r"fpn-BASE_LR=0.01/seed0: SOLVER.MAX_ITER was 6, now 9"):
        command.main(_args(write_study(**more), dry_run=True))
    with pytest.raises(UserError, match=r"fpn/seed1: SOLVER.MAX_ITER was 6, now 9"):
        command.main(_args(write_study(TUNE_SET={"SOLVER.MAX_ITER": 6}, **more), dry_run=True))
    assert len(trained) == 3


def test_a_cell_that_has_just_been_started_counts_as_the_past(trained: Any, write_study: WriteStudy) -> None:
    """It writes its configuration only after its fingerprint."""
    path = write_study(SEEDS=[1])
    study = Study.load(path)
    place = CellFolder(path.parent / "out/tiny", study.cells[0])
    place.save_identity({"overrides": study.overrides(study.cells[0].variant, 1)})
    with pytest.raises(UserError, match=r"fpn/seed1: SOLVER.MAX_ITER was 6, now 9"):
        command.main(_args(write_study(SEEDS=[1], SET=study.settings | {"SOLVER.MAX_ITER": 9})))


def test_a_cell_that_has_just_been_started_goes_on(trained: Any, write_study: WriteStudy) -> None:
    """YAML takes these values for texts, which are numbers and lists in a configuration."""
    odd = {"SOLVER.BASE_LR": "1e-2", "SOLVER.STEPS": "(2, 4)", "DATASETS.TEST": "('tiny_study_val',)"}
    path = write_study(SEEDS=[1])
    path = write_study(SEEDS=[1], SET=Study.load(path).settings | odd)
    study = Study.load(path)
    place = CellFolder(path.parent / "out/tiny", study.cells[0])
    place.save_identity({"overrides": study.overrides(study.cells[0].variant, 1), "commit": "", "versions": {}})
    assert command.main(_args(path)) == 0 and "fpn/seed1" in trained


def test_the_reason_of_a_failure_ends_with_the_next_try(
    trained: Any, write_study: WriteStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.load(write_study(SEEDS=[1]))
    cell, trained.broken = study.cells[0], frozenset({"fpn/seed1"})
    place = CellFolder(tmp_path / "out", cell)
    assert training.run_cell(study, cell, tmp_path / "out") is State.FAILED
    assert place.status().state is State.FAILED
    monkeypatch.setattr(training, "main", lambda _: 130)  # the exit code after Ctrl-C
    assert training.run_cell(study, cell, tmp_path / "out") is State.INTERRUPTED
    assert place.status().state is State.INTERRUPTED


def test_a_study_can_be_reported_while_values_are_tried(
    trained: Any, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(**{"TUNE": {"SOLVER.BASE_LR": [0.01, 0.02]}, "TUNE_SETS": ["tiny_study_train"], "SEEDS": [1]})
    monkeypatch.setattr(command, "Runner", lambda *_: SimpleNamespace(run=lambda *_: {}, interrupted=2))
    assert command.main(_args(path)) == 130
    assert [cell.cell.name for cell in load_results(path.parent / "out/tiny").absent] == ["fpn/seed1", "sni/seed1"]


def test_finished_cells_may_have_had_their_files_elsewhere(trained: Any, write_study: WriteStudy) -> None:
    path = write_study(SEEDS=[1])
    command.main(_args(path))
    study = Study.load(path)
    for cell in study.cells:
        cfg = study.config(cell.variant, 1)
        cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 3, "MODEL.WEIGHTS", "/there/weights.pth"])
        CellFolder(path.parent / "out/tiny", cell).config.write_text(cfg.dump())
    assert command.main(_args(path)) == 0
    (CellFolder(path.parent / "out/tiny", study.cells[0]).path / "result.json").unlink()
    with pytest.raises(UserError, match=r"fpn/seed1: MODEL.WEIGHTS was '/there/weights.pth', now ''"):
        command.main(_args(path))


def test_a_cell_does_not_go_on_with_other_data(
    trained: Any, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(SEEDS=[1])
    monkeypatch.setattr(training, "read_last", lambda _: "model_0000002.pth")
    place = CellFolder(path.parent / "out/tiny", Study.load(path).cells[0])
    place.save_identity({"fingerprint": {"training data": "other", "trunk": "same"}, "versions": {}, "commit": ""})
    assert command.main(_args(path, only=["fpn/seed1"])) == 1
    words = "the training data have changed since this cell was started; put the old files back, or delete the folder"
    assert words in place.failure.read_text()


def test_a_study_file_in_another_studys_folder_is_noticed(
    trained: Any, write_study: WriteStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(SEEDS=[1])
    command.main(_args(path))
    moved = path.parent / "other/moved"  # as deep as before, because the paths in the study file are relative
    moved.parent.mkdir()
    (path.parent / "out/tiny").rename(moved)
    capsys.readouterr()
    command.main(_args(moved / "study.yaml", output=path.parent / "out"))
    said = capsys.readouterr().out
    assert f"note: {moved} holds cells of this study" in said and "let NAME be moved" in said


def test_a_failed_step_does_not_stop_the_others(
    trained: list[str], write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def costs(study: Study, folder: Path) -> None:
        done.append("costs")
        (folder / "costs.json").write_text('{"fpn": {}, "sni": {}}')

    def speed(study: Study, folder: Path) -> None:
        done.append("speed")
        raise UserError("no clock")

    monkeypatch.setattr(steps, "STEPS", {"costs": ("costs.json", costs), "speed": ("speed.json", speed)})
    path = write_study(SEEDS=[1])
    assert command.main(_args(path)) == 1
    assert "error: the step speed failed" in (said := capsys.readouterr().out)
    assert "no clock" in said
    command.main(_args(path))
    assert done == ["costs", "speed", "speed"]  # costs.json is newer than the cells
    command.main(_args(path, again=["costs"]))
    assert done[3:] == ["costs", "speed"]


def test_states_follow_from_files_and_locks(write_study: WriteStudy, tmp_path: Path) -> None:
    place = CellFolder(tmp_path, Study.load(write_study()).cells[0])
    assert place.path == tmp_path / "cells/fpn/seed1"
    assert place.status() == Status(State.WAITING)
    with locked(place.lock):
        assert is_locked(place.lock)
        place.save_identity({"host": "elsewhere", "pid": 7})
        place.metrics.write_text('{"iteration": 19, "total_loss": 1.0, "eta_seconds": 90}\n{"iterat')
        assert place.status() == Status(State.RUNNING, 20, 90, note="elsewhere pid 7")
    assert not is_locked(place.lock)
    assert place.status() == Status(State.INTERRUPTED, 20)
    place.save_failure("Traceback (most recent call last):\n  File\nValueError: no")
    assert place.status() == Status(State.FAILED, 20, note="ValueError: no")
    place.save_result({"iterations": 30, "train_seconds": 4.5, "results": {"a": {"bbox": {"AP": 1.25}}, "b": {}}})
    assert place.status() == Status(State.FINISHED, 30, train_seconds=4.5, note="1.2, –")
    assert not place.failure.exists()
    assert f"{State.FINISHED}" == str(State.FINISHED) == "finished"


def test_watching_forty_cells_costs_less_than_reading_two_of_them(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(write_study(SEEDS=list(range(1, 21))))
    for i, cell in enumerate(study.cells):
        place = CellFolder(tmp_path, cell)
        place.save_identity({"host": "here", "pid": i})
        place.metrics.write_text('{"iteration": 19, "total_loss": 1.0, "eta_seconds": 90}\n' * 10_000)
        if i % 2:
            place.save_result({"iterations": 30, "results": {"a": {"bbox": {f"AP-{c}": 1.0 for c in range(80)}}}})
    watcher = runner.Runner(study, tmp_path, InProcess())
    metrics = CellFolder(tmp_path, study.cells[0]).metrics
    watching, reading = [], []
    for _ in range(5):
        watching.append(_cpu_seconds(watcher._statuses))
        reading.append(_cpu_seconds(lambda: [json.loads(line) for line in metrics.read_text().splitlines()]))
    assert min(watching) < 2 * min(reading)


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def test_the_estimate_knows_pace_and_what_is_left(write_study: WriteStudy) -> None:
    study = Study.load(write_study())
    first, second, _, fourth = study.cells  # fpn/1 sni/1 fpn/2 sni/2
    iterations = dict.fromkeys(study.cells, 100)
    statuses = dict.fromkeys(study.cells, Status(State.WAITING))
    assert estimate(statuses, iterations, 1) is None
    statuses[first] = Status(State.FINISHED, 100, train_seconds=50.0)
    statuses[second] = Status(State.RUNNING, 50, eta_seconds=100)
    # fpn 0.5 s and sni 2 s per iteration: 100 s for the rest of sni/1, 50 s for fpn/2, 200 s for sni/2
    assert estimate(statuses, iterations, 1) == pytest.approx(350)
    assert estimate(statuses, iterations, 2) == pytest.approx(200)  # one cell cannot be shared
    statuses[fourth] = Status(State.FAILED, 3)
    assert estimate(statuses, iterations, 1) == pytest.approx(150)
    assert estimate(dict.fromkeys(statuses, statuses[first]), iterations, 1) == 0


def test_the_table_shows_every_cell(write_study: WriteStudy) -> None:
    from rich.console import Console

    study = Study.load(write_study(SEEDS={"fpn": [1, 2], "sni": [1]}))
    statuses = dict.fromkeys(study.cells, Status(State.WAITING))
    statuses[study.cells[1]] = Status(State.RUNNING, 3, 61.2, note="[pid] 7")
    progress = Progress(study, dict.fromkeys(study.cells, 6), 1)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(progress._table(statuses, progress._summary(statuses)))
    text = console.export_text()
    for words in ("seed 2", "sni", "running 3/6, 0:01:01 left ([pid] 7)", "waiting", "0 of 3 cells finished, 1 run"):
        assert words in text


def test_fairness_is_told_by_seed(write_study: WriteStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study.load(write_study(AXES={"pyramid": ["fpn", "sni", "ihp"]}))
    for cell in study.cells:
        order = "b" if cell.name == "ihp/seed2" else "a"
        prints = {"trunk": "t", "data order": order}
        code = {"imports": {"own.py": order}} if cell.variant.name != "fpn" else {}  # of an earlier version
        place = CellFolder(tmp_path, cell)
        place.save_identity({"commit": order, "versions": {}, "fingerprint": prints} | code)
        place.save_result({"results": {}})
    command._print_fairness(study, tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "Seed 1:",
        "  equal in all 3 variants: trunk, data order, code of own.py, configuration except for the pyramid",
        "Seed 2:",
        "  equal in all 3 variants: trunk, configuration except for the pyramid",
        "  data order differs: fpn, sni | ihp",
        "  code of own.py differs: sni | ihp",
        "Cells were trained by different versions (commits a, b); their folders name them",
        "Cells were trained with different code of own.py (the first ones are sni/seed1, ihp/seed2)",
    ]
