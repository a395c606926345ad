"""How readers report broken data: they skip a single object with a warning, and refuse an image or a file.

Readers report what they find to a `Problems` object. Normally the skipped items are summarised in one warning, and
the first refused item raises an error. Inside `collect_problems()` every problem is collected instead, so that
`python -m sn2fpn.data.check` can list all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError

__all__ = ["BUILT_IN_HINT", "Problem", "Problems", "collect_problems"]

BUILT_IN_HINT = " (built-in data sets are read from $DETECTRON2_DATASETS, default ./datasets; see datasets/README.md)"
"""What the message of a missing annotation file ends with, where no similar file lies beside it."""

logger = logging.getLogger(__name__)


class Problem(NamedTuple):
    """A problem in a data set: the file that has it, and what is wrong with which item."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


_collected: ContextVar[list[Problem] | None] = ContextVar("collected_problems", default=None)


@contextmanager
def collect_problems() -> Iterator[list[Problem]]:
    """Collect the problems that readers find inside this context in the yielded list, and let readers go on."""
    found: list[Problem] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


class Problems:
    """The problems that are found while one data set is read; a context manager around the reading.

    Args:
        what: what is being read, for the summary, e.g. "data set 'voc_2007_train'".
    """

    SHOWN = 5  # number of items in the summary, so that 10,000 bad boxes make one warning

    def __init__(self, what: str) -> None:
        self.what = what
        self._skipped: list[Problem] = []

    def skip(self, file: str | Path, reason: str) -> None:
        """Report an item that is left out or repaired while everything else is kept."""
        collected = _collected.get()
        (self._skipped if collected is None else collected).append(Problem(str(file), reason))

    def refuse(self, file: str | Path, reason: str) -> None:
        """Raise an error for an item that makes its image or file unusable, or collect it.

        Raises:
            UserError: problems are not being collected.
        """
        problem, collected = Problem(str(file), reason), _collected.get()
        if collected is None:
            raise UserError(str(problem))
        collected.append(problem)

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
