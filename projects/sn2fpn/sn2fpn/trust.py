"""Whether Python code that came with a file may be run.

A study file and a folder of results are data to those who open them, but they may name Python files. Such code runs if
it is the user's own, or if the user says so with `--trust`. A file is the user's own if it belongs to the user, or to
root, who needs no file to act as the user, and if not everybody may change it. Members of the file's group count as
trusted by its owner, since many systems let each user's files belong to a group of that user alone.

What a user names as a program on a command line is run as it is: the files of `--import`, and a Python configuration of
train_net.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError

__all__ = ["check_own"]


def check_own(files: Iterable[str | Path], action: str) -> None:
    """Refuse to run code that somebody else may have written.

    Args:
        files: the files that hold the code or name it. Those that do not exist are passed over.
        action: what would happen, for the message, e.g. "s.yaml: IMPORTS would run my_pyramid.py".

    Raises:
        UserError: a file belongs to another user, or everybody may change it.
    """
    for file in files:
        problem = _problem(Path(file))
        if problem:
            raise UserError(f"{action}, but {file} {problem}; read the code, then add --trust to run it")


def _problem(file: Path) -> str:
    """Return why a file may be somebody else's work, or "" if it is the user's own."""
    try:
        status = file.stat()
    except OSError:
        return ""
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to {_user(status.st_uid)}"
    return "may be changed by every user of this machine" if status.st_mode & stat.S_IWOTH else ""


def _user(number: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(number).pw_name!r}"
    except KeyError:
        return f"the user with the number {number}"
