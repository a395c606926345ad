"""Test that locks keep other processes out, name their holder, and end with their process."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sn2fpn.locks import LockedError, LocksUnsupportedError, is_locked, only_user

_HOLDER = """
import os, sys, time
from pathlib import Path
from sn2fpn.locks import only_user
with only_user(Path(sys.argv[1])):
    if os.fork() == 0:  # as a data loader's worker, which may outlive a killed run
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def _start(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_killed_process_gives_its_lock_back_although_a_child_of_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    process = _start(path)
    try:
        assert is_locked(path)
        words = rf"pid {process.pid} on {os.uname().nodename}, started at 20"
        with pytest.raises(LockedError, match=words), only_user(path):
            pass
        process.kill()
        process.wait()
        with only_user(path):
            assert is_locked(path)
            assert path.read_text().startswith(f"pid {os.getpid()} on")
        assert not is_locked(path)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LocksUnsupportedError, match="does not support locks"), only_user(tmp_path / ".lock"):
        pass
