"""Locks on files, which the operating system releases when their process ends, however it ends.

`filelock` is not used because it cannot ask whether somebody holds a lock without taking it, and because some of its
versions fall back to lock files that a killed process leaves behind.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from .atomic import storage_errors
from .errors import UserError

__all__ = ["LockedError", "LocksUnsupportedError", "is_locked", "locked", "only_user"]

_POLL_S = 0.5
_PATIENCE_S = 1.0  # a process that was forked just before its parent was killed needs a moment to let go
_HELD: set[IO[Any]] = set()


class LockedError(Exception):
    """Another process holds a lock; `str(error)` is what it has written about itself."""


class LocksUnsupportedError(UserError):
    """The file system has no locks."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait while another process, on any machine that shares the folder, holds it."""
    with _opened(path) as file:
        while not _try(file, fcntl.LOCK_EX):
            time.sleep(_POLL_S)  # a blocking flock would delay signal handlers
        yield


@contextmanager
def only_user(path: Path) -> Iterator[None]:
    """Hold the lock of a file, in which this process writes its host, its pid and the time.

    Raises:
        LockedError: another process holds the lock, on any machine that shares the folder.
        LocksUnsupportedError: the file system has no locks.
    """
    with _opened(path) as file:
        deadline = time.monotonic() + _PATIENCE_S
        while not (held := _try(file, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(_PATIENCE_S / 20)
        if not held:
            raise LockedError(path.read_text(encoding="utf-8", errors="replace").strip() or "another process")
        with storage_errors(path):
            os.ftruncate(file.fileno(), 0)
            me = f"pid {os.getpid()} on {socket.gethostname()}, started at {datetime.now():%Y-%m-%d %H:%M:%S}"
            os.write(file.fileno(), f"{me}\n".encode())
        yield


def is_locked(path: Path) -> bool:
    """Return whether some process holds the lock of a file."""
    if not path.exists():
        return False
    with path.open() as file:
        return not _try(file, fcntl.LOCK_SH)


@contextmanager
def _opened(path: Path) -> Iterator[IO[Any]]:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)
    with file:
        _HELD.add(file)
        try:
            yield file
        finally:
            _HELD.discard(file)


def _let_go() -> None:
    """Close the files in a forked process, such as a data loader's worker, which may outlive a killed run."""
    for file in _HELD:
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def _try(file: IO[Any], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        raise LocksUnsupportedError(
            f"{file.name}: the file system does not support locks ({e}); choose another output folder"
        ) from e
    return True
