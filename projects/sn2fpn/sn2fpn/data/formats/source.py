"""Where a data set lies, and what a format needs to know about it: one entry of `DATASETS.CUSTOM`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ArgumentError, UserError
from ..readings import depends_on
from ..records import DatasetDicts
from ..values import clean_name

__all__ = ["CLASS_LIST", "Reader", "Source", "choose_split", "clean_names", "read_class_list", "read_text"]

CLASS_LIST = "classes.txt"
"""The file that lists the classes of a folder whose format has no place for them, one on each line, in order."""


class Source(NamedTuple):
    """The files of a data set. It is hashable, so that `read_once` knows what it has read.

    Args:
        name: the name of the data set, for messages.
        annotations: the annotation file, or the folder that holds the data set.
        images: the folder of the images; None leaves it to the format.
        split: the part of the data set, such as "train", for formats that have parts.
        classes: the class names by contiguous id, for formats whose files do not list them; None takes all names that
            occur, sorted.
        allow_outside: accept names of images that lead outside of the folder of the images.
    """

    name: str
    annotations: Path
    images: Path | None = None
    split: str | None = None
    classes: tuple[str, ...] | None = None
    allow_outside: bool = False


Reader = Callable[[Source], tuple[DatasetDicts, dict[str, Any]]]
"""Returns data set dicts, and metadata such as `thing_classes`; see `sn2fpn.data.readings.read_once`."""


def choose_split(source: Source, splits: list[str]) -> str:
    """Return the split to read, which need not be named if there is one only.

    Raises:
        ArgumentError: there are several splits, and none is named.
    """
    if source.split is None and len(splits) != 1:
        found = ", ".join(splits[:8]) + (f", … ({len(splits)} in all)" if len(splits) > 8 else "")
        raise ArgumentError("SPLIT", f"expected one of the parts of {source.annotations} ({found or 'it has none'})")
    return source.split if source.split is not None else splits[0]


def clean_names(values: Sequence[Any], place: str) -> list[str]:
    """Return class names on one line each. Whole numbers are names, too, because YAML takes a name such as 7 for one.

    Args:
        values: the names.
        place: where they stand, for messages.

    Raises:
        UserError: a name is something else or empty, or two are equal.
    """
    if isinstance(values, str):
        raise UserError(f"{place}: expected a list of names, found {values!r}")
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise UserError(f"{place}: class {i} is {value!r}, expected a text; put it in quotes")
    cleaned = [clean_name(str(value)) for value in values]
    if not all(cleaned) or len(set(cleaned)) < len(cleaned):
        raise UserError(f"{place}: expected different names, found {values}")
    return cleaned


def read_class_list(path: Path) -> list[str]:
    """Return the class names in a file, one on each line; there are none if the file does not exist.

    Raises:
        UserError: the file is no text, or names a class twice.
    """
    depends_on(path)
    if not path.is_file():
        return []
    names = [name for line in read_text(path).splitlines() if (name := clean_name(line))]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{path}: the class {repeated!r} is listed more than once")
    return names


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without the mark that some editors put before it.

    Raises:
        UserError: the file does not exist or is not UTF-8.
    """
    depends_on(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: the file does not exist") from None
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: not readable as UTF-8 text: {e}") from None
