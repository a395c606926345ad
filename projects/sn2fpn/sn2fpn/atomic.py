"""Write files that are either complete or not there: they are written beside the target and then renamed."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import UserError

__all__ = ["DAY_S", "StorageError", "atomic_path", "atomic_write", "remove_leftovers", "storage_errors"]

_STORAGE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.EIO,
}
"""What an operating system answers when it cannot write a file, which is no mistake of this program."""

_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.part(\.\w+)?")
DAY_S = 24 * 60 * 60
"""The age at which a temporary file in a folder that others may share belongs to nobody."""
_LONGEST_PREFIX = 48  # characters of the target's name in a temporary name, which stays within 255 bytes
_STATUS = Path("/proc/self/status")  # of Linux
_UMASK_AT_START = os.umask(0o077)  # for other systems
os.umask(_UMASK_AT_START)


class StorageError(UserError, OSError):
    """A file cannot be written, for instance because the disk is full. It is an OSError for those who handle these."""


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    Parent folders are made. After an error the old file is unchanged and the temporary file is removed.

    Args:
        path: the file to write or replace.
        mode: "w" for text in UTF-8, "wb" for bytes.

    Raises:
        StorageError: the file cannot be written, for instance because the disk is full.
    """
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, temporary.open(mode, encoding=encoding) as file:
        yield file


@contextmanager
def atomic_path(path: str | Path, ending: str = ".part") -> Iterator[Path]:
    """Give the path of a temporary file that replaces `path`, like `atomic_write` for writers that open files.

    Args:
        path: the file to write or replace.
        ending: the ending of the temporary file's name, which starts with `.part` and from which a writer may derive
            the format.

    Raises:
        StorageError: the file cannot be written, for instance because the disk is full.
    """
    path = Path(path)
    with storage_errors(path, "An older file of this name is intact"):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name[:_LONGEST_PREFIX]}."
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=ending)
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


def remove_leftovers(folder: str | Path, age_s: float = 0) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder, and return their paths.

    Args:
        folder: the folder; folders in it are left as they are.
        age_s: the least age of the files in seconds. With 0, nobody else may write into the folder at this time.
    """
    found = [path for path in Path(folder).glob(".*.part*") if _LEFTOVER.fullmatch(path.name) and path.is_file()]
    if age_s:
        found = [path for path in found if _is_older(path, age_s)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _is_older(path: Path, age_s: float) -> bool:
    """Return whether a file was last changed this long ago; one that is gone meanwhile was not."""
    try:
        return path.stat().st_mtime < time.time() - age_s
    except FileNotFoundError:
        return False


@contextmanager
def storage_errors(path: str | Path = "", consequence: str = "") -> Iterator[None]:
    """Turn what the operating system refuses inside this context, such as writing to a full disk, into a StorageError.

    Args:
        path: the file that is written; without it, the message names the file that the error names, if any.
        consequence: a sentence for the message.

    Raises:
        StorageError: names the file and the cause, such as "no space left on device".
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = _cause(error)
        if cause is None:
            raise
        reason = os.strerror(cause.errno)
        where = f"cannot write {path}" if path else str(cause.filename or "cannot write a file")
        end = f". {consequence}" if consequence else ""
        raise StorageError(f"{where}: {reason[:1].lower()}{reason[1:]}{end}") from error


def _cause(error: BaseException | None) -> OSError | None:
    """Return the error of the operating system behind an error, or None.

    torch's writer reports a full disk as a RuntimeError about an unexpected position, which follows an OSError.
    """
    while isinstance(error, RuntimeError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, OSError) and error.errno in _STORAGE else None


def _umask() -> int:
    """Return the permissions that new files lack. To ask the system for them is to change them, for all threads."""
    try:
        found = re.search(rb"^Umask:\s*([0-7]+)$", _STATUS.read_bytes(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1], 8) if found else _UMASK_AT_START
