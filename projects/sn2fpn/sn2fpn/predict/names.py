"""File names of any kind in messages, in JSON and in the output folder."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["free_names", "in_json", "printable", "shown"]

_MOST_LETTERS = 300
_MOST_BYTES = 200
"""Most file systems allow 255 bytes; what is added to a name while its file is written needs some of them."""


def printable(text: str, keep: str = "") -> str:
    """Escape what would move the cursor or cannot be encoded, such as line breaks, ESC and bytes that are not UTF-8.

    Args:
        text: any text.
        keep: characters that stay.

    Example:
        >>> printable("two\\nlines")
        'two\\\\nlines'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's way to hold a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def shown(path: Any) -> str:
    """Return a name for a message: in one line, and with the middle left out if it is very long."""
    text = printable(str(path))
    half = _MOST_LETTERS // 2
    return text if len(text) <= _MOST_LETTERS else f"{text[:half]}…{text[-half:]}"


def in_json(path: Any) -> str:
    """Return a name for a JSON file, in which bytes that are not UTF-8 have no place and are escaped."""
    return "".join(_escape(c) if "\ud800" <= c <= "\udfff" else c for c in str(path))


def free_names(
    files: Sequence[Any],
    folder: Path,
    suffix: Callable[[Any], str],
    taken: Container[str] = (),
    sub_folders: Sequence[Path] = (),
) -> Iterator[Path]:
    """Yield a file in a folder for each input. It has the input's name, with a number where names repeat.

    Names that differ only in case count as repeated, because some file systems do not tell them apart. Characters that
    are not printable become "_", and very long names are cut off.

    Args:
        files: the inputs, whose `stem` is their name.
        folder: where the files will be written.
        suffix: returns the ending of the name, such as ".png".
        taken: further names that must not be used, in lower case.
        sub_folders: for each input the sub-folder of `folder` that its file belongs in; none stands for `folder`.
    """
    places = [_place(sub, taken) for sub in sub_folders] or [Path()] * len(files)
    used = {str(p).casefold() for place in set(places) for p in (place, *place.parents)}
    numbers: dict[str, int] = {}
    for file, place in zip(files, places):
        stem, end = str(place / _clean(file.stem)), suffix(file)
        name, key = stem + end, (stem + end).casefold()
        while name.casefold() in used or name.casefold() in taken or (folder / name).is_dir():
            numbers[key] = numbers.get(key, 1) + 1
            name = f"{stem}-{numbers[key]}{end}"
        used.add(name.casefold())
        yield folder / name


def _place(sub_folder: Path, taken: Container[str]) -> Path:
    parts = [_clean(part) for part in sub_folder.parts]
    return Path(*(part + "_" * (part.casefold() in taken) for part in parts))


def _clean(stem: str) -> str:
    stem = "".join(c if c.isprintable() else "_" for c in stem)
    return stem.encode()[:_MOST_BYTES].decode(errors="ignore")
