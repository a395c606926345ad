"""How readers report broken data: they skip a single object with a warning, and refuse an image or a file.

Readers report what they find to a `Problems` object. Normally the items that are left out or changed are summarised in
one warning, with their number by kind, and the first refused item raises an error. Inside `collect_problems()` every
problem is collected instead, so that `python -m sn2fpn.data.check` can list all of them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from ..command_line import as_typed
from ..errors import UserError, counted, counted_of

__all__ = [
    "BUILT_IN_HINT",
    "Problem",
    "Problems",
    "Unusable",
    "add_left_out",
    "are_collected",
    "collect_problems",
    "count_left_out",
    "log_once",
]

BUILT_IN_HINT = (
    " (built-in data sets are read from $DETECTRON2_DATASETS, default ./datasets: COCO from coco/annotations/*.json, "
    "coco/train2017 and coco/val2017; Pascal VOC from Annotations, ImageSets/Main and JPEGImages in VOC2007, VOC2012; "
    "photos from the folder that python -m sn2fpn.data.photos makes)"
)
"""What the message of a missing annotation file ends with, where no similar file lies beside it."""

logger = logging.getLogger(__name__)


class Problem(NamedTuple):
    """A problem in a data set: the file that has it, and what is wrong with which item."""

    file: str
    reason: str
    is_note: bool = False  # True for what may be intended, so that it does not make the data invalid

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class Unusable(ValueError):
    """The reason why an object is left out.

    Args:
        kind: the kind of the reason, which completes "3 objects …", e.g. "without area".
        reason: what was found and what was expected.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


_collected: ContextVar[list[Problem] | None] = ContextVar("collected_problems", default=None)
_left_out: ContextVar[Counter[str] | None] = ContextVar("left_out", default=None)
_logged: set[str] = set()


@contextmanager
def collect_problems() -> Iterator[list[Problem]]:
    """Collect the problems that readers find inside this context in the yielded list, and let readers go on."""
    found: list[Problem] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


@contextmanager
def count_left_out() -> Iterator[Counter[str]]:
    """Count the objects that readers leave out inside this context, by kind (see `Unusable`)."""
    counts = Counter[str]()
    token = _left_out.set(counts)
    try:
        yield counts
    finally:
        _left_out.reset(token)


def add_left_out(counts: Counter[str]) -> None:
    """Add to what `count_left_out` counts, for a data set whose objects were left out when it was read before."""
    if (total := _left_out.get()) is not None:
        total.update(counts)


def are_collected() -> bool:
    """Return whether problems are being collected (see `collect_problems`)."""
    return _collected.get() is not None


def log_once(logger: logging.Logger, text: str) -> None:
    """Log the size of a data set, unless this process has logged it already: a run reads a data set several times."""
    if text not in _logged:
        _logged.add(text)
        logger.info("%s", text)


class Problems:
    """The problems that are found while one data set is read; a context manager around the reading.

    Args:
        what: what is being read, for the summary, e.g. "data set 'voc_2007_train'".

    Attributes:
        objects: the number of objects in the files, for the summary.
    """

    SHOWN = 5  # number of items in the summary, so that 10,000 bad boxes make one warning

    def __init__(self, what: str) -> None:
        self.what = what
        self.objects = 0
        self._found: list[Problem] = []
        self._kinds = Counter[str](), Counter[str]()  # of what is left out, and of what is changed

    def leave_out(self, file: str | Path, label: str, reason: Unusable) -> None:
        """Report an object that is left out while everything else is kept."""
        self._kinds[0][reason.kind] += 1
        if (counts := _left_out.get()) is not None:
            counts[reason.kind] += 1
        self._add(Problem(str(file), f"{label} skipped: {reason}"))

    def change(self, file: str | Path, reason: str, kind: str) -> None:
        """Report an object that is kept but not as annotated; `kind` completes "3 objects …", e.g. "clipped"."""
        self._kinds[1][kind] += 1
        self._add(Problem(str(file), reason))

    def remark(self, file: str | Path, reason: str, is_note: bool = False) -> None:
        """Report something about the whole data set, which the summary says before all items."""
        self._add(Problem(str(file), reason, is_note), 0)

    def refuse(self, file: str | Path, reason: str) -> None:
        """Raise an error for an item that makes its image or file unusable, or collect it.

        Raises:
            UserError: problems are not being collected.
        """
        problem, collected = Problem(str(file), reason), _collected.get()
        if collected is None:
            raise UserError(str(problem))
        collected.append(problem)

    def _add(self, problem: Problem, position: int | None = None) -> None:
        collected = _collected.get()
        found = self._found if collected is None else collected
        found.insert(len(found) if position is None else position, problem)

    def __enter__(self) -> Problems:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._found:
            return
        totals = [
            f"{counted_of(sum(kinds.values()), self.objects, 'object', 'is/are')} {what} ({_list_kinds(kinds)})"
            for what, kinds in zip(("left out", "changed"), self._kinds)
            if kinds
        ]
        notes = sum(problem.is_note for problem in self._found)
        numbers = [counted(n, word) for n, word in ((len(self._found) - notes, "problem"), (notes, "note")) if n]
        first = f"{self.what}: {' and '.join(numbers)} in the annotations"
        lines = [": ".join([first, *(["; ".join(totals)] if totals else [])])]
        lines += [f"  {p}" for p in self._found[: self.SHOWN]]
        if (rest := len(self._found) - self.SHOWN) > 0:
            lines.append(as_typed(f"  … and {rest:,} more (python -m sn2fpn.data.check lists all)"))
        logger.warning("%s", "\n".join(lines))


def _list_kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
