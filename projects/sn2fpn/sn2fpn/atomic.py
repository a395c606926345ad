"""Write files that are either complete or not there: they are written beside the target and then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_path", "atomic_write"]


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    Parent folders are made. After an error the old file is unchanged and the temporary file is removed.

    Args:
        path: the file to write or replace.
        mode: "w" for text in UTF-8, "wb" for bytes.
    """
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, temporary.open(mode, encoding=encoding) as file:
        yield file


@contextmanager
def atomic_path(path: str | Path, ending: str = ".part") -> Iterator[Path]:
    """Give the path of a temporary file that replaces `path`, like `atomic_write` for writers that open files.

    Args:
        path: the file to write or replace.
        ending: the ending of the temporary file's name, from which a writer may derive the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=ending)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
