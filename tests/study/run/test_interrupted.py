"""The runner as a user runs it, killed or told to stop: nothing is lost, and nothing is trained twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.locks import is_locked

WriteStudy = Callable[..., Path]
_ENV = os.environ | {"OMP_NUM_THREADS": "1"}
_LONG = 100_000


def _start(study: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sn2fpn.study", "run", str(study), "--output", str(study.parent / "out"), *flags]
    return subprocess.Popen(
        command,
        env=_ENV,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a process group of its own, as a terminal would start it
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also where the tests run under nohup
    )


def _wait(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _saved_at(folder: Path) -> int:
    return int((folder / "last_checkpoint").read_text().removeprefix("model_").removesuffix(".pth"))


def _study(write_study: WriteStudy, tiny_study: dict[str, Any], iterations: int) -> Path:
    keys = {"SET": tiny_study["SET"] | {"SOLVER": tiny_study["SET"]["SOLVER"] | {"MAX_ITER": iterations}}}
    return write_study(SEEDS=[1], **keys)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill -9", signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_an_interrupted_study_goes_on(
    how: str | signal.Signals, write_study: WriteStudy, tiny_study: dict[str, Any]
) -> None:
    path = _study(write_study, tiny_study, _LONG)
    folder = path.parent / "out/tiny"
    cell = folder / "cells/fpn/seed1"
    runner = _start(path)
    _wait((cell / "last_checkpoint").is_file, runner)
    assert is_locked(cell / ".lock")
    if how == "kill -9":
        runner.kill()
        runner.communicate()
        _wait(lambda: not is_locked(cell / ".lock"))  # the job notices, saves and stops
    else:
        os.killpg(runner.pid, how)
        said = runner.communicate(timeout=120)[0]
        assert runner.returncode == 128 + how, said
        assert "the same command continues" in said
        assert not list(folder.glob("jobs/runner-*"))
    at = _saved_at(cell)
    assert not (cell / "failure.txt").exists()
    assert "Interrupted after iteration" in (cell / "log.txt").read_text()
    if how in ("kill -9", signal.SIGINT):  # after the other signals, the folder is as after SIGINT
        _assert_goes_on(cell, at, write_study, tiny_study)


def _assert_goes_on(cell: Path, at: int, write_study: WriteStudy, tiny_study: dict[str, Any]) -> None:
    """Shorten the rest of the study, let it end, and look at the cell, which was saved after iteration `at`.

    The folder must hold the same configuration, so that is shortened as well.
    """
    path = _study(write_study, tiny_study, at + 4)
    config = cell / "config.yaml"
    config.write_text(config.read_text().replace(f"MAX_ITER: {_LONG}", f"MAX_ITER: {at + 4}"))
    other = _start(path, "--only", "fpn/seed1")
    said = other.communicate(timeout=300)[0]
    assert other.returncode == 0, said
    assert f"Resuming at iteration {at + 1} of {at + 4}" in (cell / "log.txt").read_text()
    result = json.loads((cell / "result.json").read_text())
    assert result["iterations"] == at + 4
    assert result["results"]["tiny_study_val"]["bbox"].keys() >= {"AP", "AP50"}
    assert len(json.loads((cell / "cell.json").read_text())["tries"]) == 2


@pytest.mark.slow
def test_two_runners_share_a_study(write_study: WriteStudy, tiny_study: dict[str, Any]) -> None:
    path = write_study()
    cells = path.parent / "out/tiny/cells"
    runners = [_start(path, "--only", "*/seed1") for _ in range(2)]
    said = [runner.communicate(timeout=400)[0] for runner in runners]
    assert all((cells / name / "seed1/result.json").is_file() for name in ("fpn", "sni")), said
    for name in ("fpn", "sni"):
        cell = cells / name / "seed1"
        assert (cell / "log.txt").read_text().count("iter 6/6") == 1  # trained by one of them
        assert len(json.loads((cell / "cell.json").read_text())["tries"]) == 1


@pytest.mark.slow
def test_a_cell_whose_process_dies_is_reported(write_study: WriteStudy, tiny_study: dict[str, Any]) -> None:
    path = _study(write_study, tiny_study, 6)
    (path.parent / "dies.py").write_text(
        "import os, signal\n"
        "if 'SUBMITIT_EXECUTOR' in os.environ:  # in the job, not in the runner\n"
        "    print('last words', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path.write_text(path.read_text() + "IMPORTS: [dies.py]\n")
    runner = _start(path, "--only", "sni")
    said = runner.communicate(timeout=200)[0]
    assert runner.returncode == 1, said
    failure = (path.parent / "out/tiny/cells/sni/seed1/failure.txt").read_text()
    assert "ended without a reason" in failure
    assert "last words" in failure
