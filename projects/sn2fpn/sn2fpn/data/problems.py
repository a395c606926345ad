"""What a reader does with broken data: skip one box with a warning, refuse an image or a file.

Readers say what they found through a `Problems` object. Normally skipped items end in one summarised
warning and the first refused item raises; inside `collect_problems()` everything is noted instead, so
that `python -m sn2fpn.data.check` can list it all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError

__all__ = ["Problem", "Problems", "collect_problems"]

logger = logging.getLogger(__name__)


class Problem(NamedTuple):
    """One finding: the file it is in, and what is wrong with which item."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


_collected: ContextVar[list[Problem] | None] = ContextVar("collected_problems", default=None)


@contextmanager
def collect_problems() -> Iterator[list[Problem]]:
    """Within this context readers note every problem in the yielded list and go on."""
    found: list[Problem] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


class Problems:
    """The problems of one reading; use as a context manager around it.

    Args:
        what: the thing read, in words for the summary ("data set 'voc_2007_train'").
    """

    SHOWN = 5  # items listed in the summary: 10,000 bad boxes are still one warning

    def __init__(self, what: str) -> None:
        self.what = what
        self._skipped: list[Problem] = []

    def skip(self, file: str | Path, reason: str) -> None:
        """Note an item that is left out (or mended) while everything else is kept."""
        self._note(Problem(str(file), reason), self._skipped)

    def refuse(self, file: str | Path, reason: str) -> None:
        """Raise for an item that makes its image or file unusable; when collecting, note it."""
        problem = Problem(str(file), reason)
        if _collected.get() is None:
            raise UserError(str(problem))
        self._note(problem, self._skipped)

    @staticmethod
    def _note(problem: Problem, otherwise: list[Problem]) -> None:
        collected = _collected.get()
        (otherwise if collected is None else collected).append(problem)

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._skipped:
            return
        lines = [f"  {p}" for p in self._skipped[: self.SHOWN]]
        rest = len(self._skipped) - len(lines)
        if rest:
            lines.append(f"  … and {rest} more (python -m sn2fpn.data.check lists all)")
        logger.warning("%s: %d problem(s) in the annotations:\n%s", self.what, len(self._skipped), "\n".join(lines))
