"""Locks on files that the operating system releases when their process ends, however it ends.

`filelock` is not used because it cannot ask whether somebody holds a lock without taking it, and because some of its
versions fall back to lock files that a killed process leaves behind.
"""

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
    """Hold the lock of a file; wait while another process, on any machine that shares the folder, holds it.

    Raises:
        UserError: The file system does not support locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _try(file, fcntl.LOCK_EX):
            time.sleep(_POLL_S)  # a blocking flock would delay signal handlers
        yield


def is_locked(path: Path) -> bool:
    """Return whether some process holds the lock of a file."""
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
        raise UserError(f"{file.name}: the file system does not support locks ({e}); choose another --output") from e
    return True
