"""The files of a study: JSON files, and locks that the operating system releases when their process ends.

`filelock` is not used because it cannot ask whether somebody holds a lock without taking it, and because some of its
versions fall back to lock files that a killed process leaves behind.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..atomic import atomic_write
from ..errors import UserError

__all__ = ["is_locked", "locked", "read_json", "write_json"]

_POLL_S = 0.5


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or {} when there is no such file; a UserError names a broken file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(
            f"{path}: cannot be read as JSON ({e}); delete the file, and the study writes it again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a JSON file in one step, so that readers find either the old content or the new one."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=indent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait while another process, on any machine that shares the folder, holds it."""
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
