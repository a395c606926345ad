"""Tests of runs that are stopped by signals or killed: nothing is lost, and a resumed run ends with the same weights.

A chain of runs in one output folder is interrupted again and again, and then ends. Its final weights and the rows of
`metrics.json` are compared bit by bit with those of a run that was never interrupted. `SN2FPN_KILLS` sets the number of
kills of each chain:

    SN2FPN_KILLS=200 python -m pytest -s -m slow -k lose_nothing tests/engine/test_signals_and_kills.py
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from sn2fpn.program import STOP_SIGNALS

pytestmark = pytest.mark.slow
ReadRows = Callable[[Path], list[dict[str, Any]]]

_ROOT = Path(__file__).parents[2]
_CONFIG = _ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
_KILLS = int(os.environ.get("SN2FPN_KILLS", "10"))
_END_S = 15.0  # the promise is 10 s after a step, and machines that run tests are slow
_LONG = 100_000
_SMALL = {
    "SEED": 3,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "INPUT.MIN_SIZE_TRAIN": "(48,)",
    "INPUT.MIN_SIZE_TEST": 48,
    "SOLVER.STEPS": "()",
    "SOLVER.CHECKPOINT_PERIOD": 3,
    "SOLVER.CHECKPOINTS_TO_KEEP": 3,
    "DATASETS.TEST": "()",
}
_CONTEXT = multiprocessing.get_context("forkserver")  # it imports torch once for all runs
_CONTEXT.set_forkserver_preload(["sn2fpn.engine.native", "sn2fpn.engine.processes"])


def _program(arguments: list[str], log: Path, ignore_hangup: bool) -> None:
    """Be train_net.py in a process group of its own, whose output goes to a file."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignore_hangup else signal.SIG_DFL)  # however the tests were started
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a program that was started by itself
    from sn2fpn.engine import main

    sys.exit(main(arguments))


def _members(group: int) -> dict[int, tuple[int, str]]:
    """Return `{pid: (parent, command line)}` of the living processes of a group."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found[int(folder.name)] = int(parent), (folder / "cmdline").read_text()
        except OSError:
            continue  # it has just ended
    return found


class _Run:
    """A run of train_net.py."""

    started: ClassVar[list[_Run]] = []

    def __init__(self, keys: dict[str, Any], processes: int = 1, resume: bool = True, nohup: bool = False) -> None:
        flags = [*(["--resume"] if resume else []), "--num-gpus", str(processes)]
        opts = [str(x) for pair in keys.items() for x in pair]
        self.out = Path(keys["OUTPUT_DIR"])
        self.log = self.out.with_suffix(f".{time.monotonic_ns()}.txt")
        arguments = ["--engine", "native", "--config-file", str(_CONFIG), *flags, *opts]
        self.process = _CONTEXT.Process(target=_program, args=(arguments, self.log, nohup))
        self.process.start()
        self.started.append(self)

    def said(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def wait_for(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.002)

    def wait_for_words(self, words: str) -> None:
        self.wait_for(lambda: words in self.said())

    def ranks(self) -> list[int]:
        members = _members(self.process.pid)
        return sorted(p for p, (parent, how) in members.items() if parent == self.process.pid and "spawn_main" in how)

    def workers(self) -> list[int]:
        owners = self.ranks() or [self.process.pid]
        members = _members(self.process.pid)
        return sorted(p for p, (parent, how) in members.items() if parent in owners and "resource_tracker" not in how)

    def ended(self, seconds: float = _END_S) -> int:
        """Return the exit code, after which no process of the run may be left."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.said()
        deadline = time.monotonic() + seconds
        while left := {p: how for p, how in _members(self.process.pid).items() if "resource_tracker" not in how[1]}:
            assert time.monotonic() < deadline, (left, self.said())
            time.sleep(0.05)
        return self.process.exitcode


def _iteration(out: Path) -> int:
    return int((out / "last_checkpoint").read_text().removeprefix("model_").removesuffix(".pth"))


def _assert_same_end(keys: dict[str, Any], processes: int, tmp_path: Path, rows_of: ReadRows) -> None:
    """Let the chain end, and compare it with a run that nothing has interrupted."""
    out, end = Path(keys["OUTPUT_DIR"]), {"SOLVER.MAX_ITER": _iteration(Path(keys["OUTPUT_DIR"])) + 4}
    whole = tmp_path / "whole"
    assert (run := _Run(keys | end, processes)).ended(300) == 0, run.said()
    assert (run := _Run(keys | end | {"OUTPUT_DIR": whole}, processes, resume=False)).ended(300) == 0, run.said()
    ours, theirs = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (out, whole))
    assert ours["iteration"] == theirs["iteration"]
    for key in ("model", "ema"):
        assert all(torch.equal(value, theirs[key][name]) for name, value in ours[key].items())
    assert rows_of(out) == rows_of(whole)


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    yield
    while _Run.started:
        for pid in _members(_Run.started.pop().process.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def keys(tiny_keys: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The keys of a chain of runs."""
    changes = {"OUTPUT_DIR": tmp_path / "out", "SOLVER.MAX_ITER": _LONG, "SOLVER.EMA.ENABLED": True}
    return tiny_keys | _SMALL | changes


_SENT_TO = {
    signal.SIGINT: ["group"],
    signal.SIGHUP: ["group"],
    signal.SIGUSR1: ["main"],
    signal.SIGUSR2: ["main"],
    signal.SIGTERM: ["main", "group"],
}
"""Who gets a signal in practice: a terminal sends the first two, and a scheduler the others."""


def _interruptions(processes: int) -> list[tuple[signal.Signals, str]]:
    """Return signals and their targets: all with one process, and those of practice with several, which are slow."""
    cases = [(number, target) for number in STOP_SIGNALS for target in ("main", "group")]
    if processes == 1:
        return [*cases, (signal.SIGTERM, "worker")]
    return [*(case for case in cases if case[1] in _SENT_TO[case[0]]), (signal.SIGTERM, "rank")]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_signal_saves_and_ends(
    processes: int, keys: dict[str, Any], lasting_rows: ReadRows, tmp_path: Path
) -> None:
    before = -1
    for number, target in _interruptions(processes):
        run = _Run(keys | {"DATALOADER.NUM_WORKERS": 2 if processes == 1 else 0}, processes)
        run.wait_for_words(" INFO: iter ")
        if target == "worker":  # the main process decides, so that a signal to a worker alone is no request
            os.kill(run.workers()[0], number)
            time.sleep(0.5)
            assert run.process.is_alive()
            assert len(run.workers()) == 2
        if target == "group":
            os.killpg(run.process.pid, number)
        else:
            os.kill(run.ranks()[-1] if target == "rank" else run.process.pid, number)
        assert run.ended() == 128 + number, run.said()
        assert f"by {number.name}" in run.said()
        assert run.said().count("Add --resume") == 1
        assert "Traceback" not in run.said()
        assert _iteration(run.out) > before
        before = _iteration(run.out)
    _assert_same_end(keys, processes, tmp_path, lasting_rows)


@pytest.mark.parametrize("processes", [1, 2])
def test_kills_lose_nothing(
    processes: int,
    keys: dict[str, Any],
    lasting_rows: ReadRows,
    tmp_path: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    choose = random.Random(processes)
    victims = ["main", "writing main", "worker"] if processes == 1 else ["main", "writing rank", "rank", "worker"]
    for i in range(_KILLS):
        victim = victims[i % len(victims)]
        run = _Run(keys | {"DATALOADER.NUM_WORKERS": 2 if i % 2 or victim == "worker" else 0}, processes)
        run.wait_for_words(" INFO: iter ")
        time.sleep(choose.random() * 0.4)
        if victim.startswith("writing"):
            run.wait_for(lambda: any(run.out.glob(".model*.part")))  # noqa: B023
        pids = {"main": [run.process.pid], "rank": run.ranks(), "worker": run.workers()}[victim.split()[-1]]
        os.kill(pids[0] if "writing" in victim else choose.choice(pids), signal.SIGKILL)
        code = run.ended(30)
        if victim.endswith("main"):
            assert code == -signal.SIGKILL
            continue
        assert code == 2, run.said()
        name = "of the data loader" if victim == "worker" else "of the run (pid"
        assert f"{name}" in run.said() and run.said().count("was killed by SIGKILL") == 1, run.said()
        assert "memory" in run.said() and "Traceback" not in run.said(), run.said()
        if victim == "worker":
            assert "was saved. Add --resume" in run.said()
    _assert_same_end(keys, processes, tmp_path, lasting_rows)
    record_testsuite_property(f"kills survived by {processes} processes", f"{_KILLS} of {_KILLS}")
    print(f"\n{processes} process(es): {_KILLS} of {_KILLS} kills survived")


def test_a_second_signal_ends_at_once(keys: dict[str, Any]) -> None:
    run = _Run(keys | {"OUTPUT_DIR": str(keys["OUTPUT_DIR"])}, processes=2)
    run.wait_for_words(" INFO: iter ")
    stuck = run.ranks()[1]
    os.kill(stuck, signal.SIGSTOP)  # the step of the others cannot end
    os.kill(run.process.pid, signal.SIGTERM)
    time.sleep(1.5)
    assert run.process.is_alive()
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.ended(5) == 128 + signal.SIGTERM


def test_nohup_stays_in_force(keys: dict[str, Any]) -> None:
    run = _Run(keys, nohup=True)
    run.wait_for_words(" INFO: iter ")
    os.killpg(run.process.pid, signal.SIGHUP)
    time.sleep(1)
    assert run.process.is_alive()
    os.kill(run.process.pid, signal.SIGUSR1)
    assert run.ended() == 128 + signal.SIGUSR1


@pytest.mark.parametrize("target", ["rank", "group"])
def test_torchrun(target: str, keys: dict[str, Any]) -> None:
    opts = [str(x) for pair in keys.items() for x in pair]
    program = [str(_ROOT / "train_net.py"), "--engine", "native", "--config-file", str(_CONFIG), *opts]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    with Path(f"{keys['OUTPUT_DIR']}.txt").open("w") as log:
        process = subprocess.Popen([*torchrun, *program], stdout=log, stderr=log, start_new_session=True)
    out, log_file = Path(keys["OUTPUT_DIR"]), Path(log.name)
    deadline = time.monotonic() + 120
    while "INFO: iter 20/" not in log_file.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log_file.read_text()
        time.sleep(0.05)
    ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    if target == "rank":
        os.kill(ranks[1], signal.SIGKILL)
        assert process.wait(40) != 0
        assert "exitcode  : -9" in log_file.read_text()  # torchrun's report
        assert f'File "{_ROOT / "train_net.py"}"' not in log_file.read_text()  # the only traceback is torchrun's
    else:  # as Slurm does it
        for pid in (*ranks, process.pid):
            os.kill(pid, signal.SIGTERM)
        assert process.wait(40) != 0
        assert "by SIGTERM" in log_file.read_text()
        assert _iteration(out) >= 19
