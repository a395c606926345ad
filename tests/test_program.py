"""Tests of what all command lines share."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sn2fpn.errors import UserError
from sn2fpn.program import STOP_SIGNALS, Interrupted, StopSignals, import_quickly, run_program


def _raise(error: BaseException) -> None:
    raise error


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(lambda: None) == 0
    assert run_program(lambda: 1) == 1
    assert run_program(lambda: _raise(UserError("--num-gpus 0: at least 1"))) == 2
    assert capsys.readouterr().err == "error: --num-gpus 0: at least 1\n"
    assert run_program(lambda: _raise(KeyboardInterrupt())) == 130


class _LogFile(logging.FileHandler):
    """As that of a process of a run."""


def test_a_mistake_reaches_the_console_once_whatever_handlers_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], leave_no_trace: None
) -> None:
    """Processes other than the first one log to files alone; Detectron2's handlers for files are plain ones."""
    logger = logging.getLogger("sn2fpn")
    with (tmp_path / "theirs.txt").open("w") as file:
        logger.propagate, logger.handlers = False, [_LogFile(tmp_path / "ours.txt"), logging.StreamHandler(file)]
        assert run_program(lambda: _raise(UserError("a mistake"))) == 2
        assert capsys.readouterr() == ("", "error: a mistake\n")
        logger.addHandler(logging.StreamHandler(sys.stdout))
        assert run_program(lambda: _raise(UserError("a mistake"))) == 2
    assert capsys.readouterr() == ("a mistake\n", "")
    assert all((tmp_path / name).read_text() == "a mistake\n" * 2 for name in ("ours.txt", "theirs.txt"))


def test_debug_shows_the_traceback_and_bugs_always_do() -> None:
    with pytest.raises(UserError, match="at least 1"):
        run_program(lambda: _raise(UserError("--num-gpus 0: at least 1")), debug=True)
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 // 0)


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_closed_pipe_ends_a_program_quietly(buffered: str) -> None:
    code = (
        "import sys, time; from sn2fpn.program import run_program; "
        "sys.exit(run_program(lambda: [time.sleep(0.2), print('x')] and None))"
    )
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    pipe, end = os.pipe()
    program = subprocess.Popen([sys.executable, "-c", code], stdout=end, stderr=subprocess.PIPE, env=environment)
    os.close(pipe)
    os.close(end)
    assert (program.communicate()[1], program.returncode) == (b"", 141)
    with pytest.raises(BrokenPipeError):  # of another pipe
        run_program(lambda: _raise(BrokenPipeError()))


def _raise_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.fixture(autouse=True)
def _hang_up_is_heard() -> Iterator[None]:
    """Let SIGHUP have its default effect, which it does not have when the tests themselves run under `nohup`."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_a_program_with_its_number(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(number)
    assert run_program(lambda: _raise_signal(number)) == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}\n"
    assert signal.getsignal(number) is handler


def test_the_second_signal_ends_what_the_first_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sn2fpn.program._ECHO_S", 0.1)
    with StopSignals(patient=True) as signals:
        _raise_signal(signal.SIGTERM)
        _raise_signal(signal.SIGTERM)  # a launcher repeats what it has heard
        time.sleep(0.1)
        for _ in range(2):  # which the launcher repeats, too
            _raise_signal(signal.SIGUSR2)  # Slurm says that the job was pre-empted
        assert signals.heard == signal.SIGUSR2
        with pytest.raises(Interrupted) as e:
            _raise_signal(signal.SIGTERM)
    assert e.value.exit_code == 143


def test_an_echo_does_not_disturb_the_end_of_a_program() -> None:
    def command() -> None:
        with StopSignals(patient=True) as signals:
            _raise_signal(signal.SIGTERM)
        _raise_signal(signal.SIGTERM)
        raise Interrupted(signals.heard)

    assert run_program(command) == 143


def test_a_notice_during_the_end_is_not_lost() -> None:
    with pytest.raises(Interrupted) as e, StopSignals(patient=True):
        _raise_signal(signal.SIGTERM)
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            _raise_signal(signal.SIGUSR2)
    assert e.value.number == signal.SIGUSR2


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_program(lambda: _raise_signal(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("enabled", [True, False])
def test_quick_imports_leave_the_collector_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    (tmp_path / "quickly.py").write_text("import gc\nwas_enabled = gc.isenabled()\nthings = [[] for _ in range(999)]\n")
    (tmp_path / "broken.py").write_text("raise ImportError('on purpose')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.isenabled()
    gc.enable() if enabled else gc.disable()
    try:
        frozen = gc.get_freeze_count()
        module = import_quickly("quickly")
        assert not module.was_enabled and gc.isenabled() == enabled
        after = gc.get_freeze_count()
        assert after - frozen > 999
        more = [[] for _ in range(999)]
        assert import_quickly("quickly") is module and gc.get_freeze_count() <= after  # nothing more is kept
        with pytest.raises(ImportError, match="on purpose"):
            import_quickly("broken")
        assert gc.isenabled() == enabled and more
    finally:
        gc.unfreeze()
        sys.modules.pop("quickly", None)
        gc.enable() if before else gc.disable()


def test_quick_imports_take_relative_names() -> None:
    from sn2fpn import errors

    assert import_quickly(".errors", "sn2fpn") is errors
