"""What all command lines share: user mistakes become one line on the console and an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from .atomic import storage_errors
from .errors import UserError

__all__ = ["report", "run_program"]


def run_program(command: Callable[[], int | None], *, debug: bool = False) -> int:
    """Run a command and return its exit code.

    Args:
        command: does the work and returns an exit code; None means 0.
        debug: raise user mistakes with their traceback instead of reporting them.

    Returns:
        The command's own exit code, 2 after a user mistake (`UserError`) or when files cannot be written, for instance
        on a full disk, which is reported, or 130 after Ctrl-C.
    """
    try:
        with storage_errors():
            return command() or 0
    except UserError as e:
        if debug:
            raise
        report(e)
        return 2
    except KeyboardInterrupt:
        return 130


def report(error: UserError) -> None:
    """Print a user mistake to the console and, when logging is set up, to the log file."""
    root = logging.getLogger("sn2fpn")
    if root.handlers:
        root.error("%s", error)
    if not any(type(h) is not logging.FileHandler for h in root.handlers):  # no handler writes to the console
        print(f"error: {error}", file=sys.stderr)
