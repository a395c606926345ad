"""Locks on files that the system lets go of when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import UserError

__all__ = ["is_locked", "locked"]

_POLL_S = 0.5


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of that file; waits while another process, on any machine that shares the folder, holds it.

    Raises:
        UserError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _try(file, fcntl.LOCK_EX):
            time.sleep(_POLL_S)  # not a blocking flock: signals are to be heard
        yield


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of that file now."""
    if not path.exists():
        return False
    with path.open() as file:
        return not _try(file, fcntl.LOCK_SH)


def _try(file: IO[Any], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        raise UserError(f"{file.name}: the file system cannot lock files ({e}); choose another with --output") from e
    return True
