"""The files of a data set's images: paths that stay in their folder, and explanations for missing files."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, counted_of, did_you_mean
from .readings import depends_on

__all__ = [
    "IMAGE_SUFFIXES",
    "PictureFolder",
    "check_files_exist",
    "explain_missing",
    "files_ending_in",
    "find_missing",
    "is_hidden",
    "path_inside",
    "walk",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_ENDINGS = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))  # of the names of image files, in the order of preference
_TRIED = 5  # number of missing files that a possible explanation is tried on
_LISTED = 50  # number of folders in which a missing file is looked for
_LONGEST_NAME, _LONGEST_PATH = 255, 4000  # bytes that file systems allow


def path_inside(root: Path, name: str, allow_outside: bool = False) -> str:
    """Return the path of a file that an annotation file names, which must not leave the folder `root`.

    Only the text of the path counts: symbolic links in the folder are followed, because its owner has made them.

    Args:
        root: the folder.
        name: the name in the annotation file, relative to `root` or absolute.
        allow_outside: accept names that lead outside of the folder.

    Raises:
        ValueError: the name leads outside of the folder, is not UTF-8, has control characters or is too long.
    """
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise ValueError(f"the name {name!r} is not UTF-8; rename the file")
    if any(ord(c) < 32 for c in name):
        raise ValueError(f"the name {name!r} has control characters")
    path = root / name
    if len(name.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise ValueError(f"the name {name[:40]!r}… has {len(name)} characters, which is too long for a file")
    if allow_outside:
        return str(path)
    plain = os.path.normpath(path)  # without "..", so that the path that is checked is the path that is opened
    folder = os.path.normpath(root.absolute())
    if os.path.commonpath([folder, os.path.normpath(path.absolute())]) != folder:
        raise ValueError(
            f"the name {name!r} leads outside of the folder {root}; if it should, "
            "set ALLOW_OUTSIDE for this data set (in Python: allow_outside=True)"
        )
    return plain if ".." in path.parts else str(path)


def is_hidden(name: str) -> bool:
    """Return whether the name of a file or folder begins with a dot.

    Programs keep small copies of pictures in such folders, and macOS writes a file `._a.jpg` beside `a.jpg` on other
    systems' disks and into archives, whose content is no picture.
    """
    return name.startswith(".")


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and the folders in it, sorted, each with the sorted names of its files.

    Symbolic links to folders are followed, after the folders beside them. Each folder is entered once, so that a link
    to a folder above it has an end. Hidden folders and files are left out; see `is_hidden`.

    Raises:
        UserError: a folder may not be read.
    """
    entered: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        here = Path(root)
        place = here.stat()
        if (place.st_dev, place.st_ino) in entered:
            folders.clear()
            continue
        entered.add((place.st_dev, place.st_ino))
        shown = (name for name in folders if not is_hidden(name))
        folders[:] = sorted(shown, key=lambda name: ((here / name).is_symlink(), name))
        depends_on(here)
        yield here, sorted(name for name in names if not is_hidden(name))


def _refuse_folder(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise UserError(f"{error.filename}: the folder cannot be read: {error}") from None


def files_ending_in(folder: Path, *endings: str) -> list[Path]:
    """Return the sorted paths in a folder, if there is one, with one of the endings in small or capital letters.

    Hidden files are left out; see `is_hidden`.
    """
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in endings and not is_hidden(p.name))


class PictureFolder:
    """The images of a folder, which are found by the beginnings of their names. Each folder is listed once.

    Args:
        folder: the folder.
        allow_outside: see `path_inside`.
    """

    def __init__(self, folder: Path, allow_outside: bool = False) -> None:
        self._folder, self._allow_outside = folder, allow_outside
        self._names: dict[Path, set[str]] = {}

    def find(self, stem: str, named: str | None = None) -> str:
        """Return the path of an image, whose file need not exist.

        It is `<stem>.jpg`, or else `<stem>` with another ending, of which that of `named` comes first, or else the file
        `named` in the same folder, which other stems may name, too.

        Raises:
            ValueError: the stem leads outside of the folder.
            UserError: the folder may not be read.
        """
        usual = path_inside(self._folder, f"{stem}.jpg", self._allow_outside)
        path = Path(usual)
        if path.parent not in self._names:
            depends_on(path.parent)
            self._names[path.parent] = _list_names(path.parent)
        names = self._names[path.parent]
        other = re.split(r"[\\/]", named or "")[-1]
        own = [other] if Path(other).stem == path.stem else []
        choices = [path.name, *own, *(path.stem + ending for ending in _ENDINGS), other]
        name = next((name for name in choices if name in names), path.name)
        return usual if name == path.name else str(path.parent / name)


def check_files_exist(dataset_dicts: Sequence[Mapping[str, Any]]) -> None:
    """Check that all image files exist, so that a missing file does not stop a run after hours.

    Raises:
        UserError: files are missing; the message names the first one and, if one is found, a common reason.
    """
    missing = find_missing(dataset_dicts)
    if missing:
        raise UserError(explain_missing(missing, len(dataset_dicts)))


def find_missing(dataset_dicts: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Return the image files that do not exist. Each folder is listed once, which is fast on network file systems.

    A link counts as the file that it leads to.

    Raises:
        UserError: a folder may not be read.
    """
    wanted: dict[str, list[str]] = {}
    for record in dataset_dicts:
        folder, name = os.path.split(record["file_name"])
        wanted.setdefault(folder, []).append(name)
    existing = {folder: _list_names(Path(folder)) for folder in wanted}
    return [Path(folder, name) for folder, names in wanted.items() for name in names if name not in existing[folder]]


def _list_names(folder: Path) -> set[str]:
    """Return the names of the files in a folder without links to nothing; there are none if there is no folder.

    Raises:
        UserError: the folder may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_symlink() or _leads_somewhere(entry)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError) as e:
        raise UserError(f"{folder}: the folder cannot be read: {e}") from None


def _leads_somewhere(link: os.DirEntry[str]) -> bool:
    return os.path.exists(link)  # noqa: PTH110 - a link to itself is no error here


def explain_missing(missing: Sequence[Path], total: int) -> str:
    """Return one line that says which of `total` files are missing and, if one is found, what would fit instead."""
    line = f"{missing[0]}: image file does not exist ({counted_of(len(missing), total, 'image', 'is/are')} missing)"
    try:
        return line + _what_would_fit(missing)
    except (OSError, ValueError):  # a folder may not be read, or a name is too long or has a zero byte
        return line


def _what_would_fit(missing: Sequence[Path]) -> str:
    first = missing[0]
    if first.is_symlink():
        return f"; it is a link to {first.readlink()}, which does not exist"
    absent = next((p for p in reversed(first.parents) if not p.exists()), None)
    said = "" if absent is None else f"; the folder {absent} does not exist"
    change = next((change for file, change in _candidates(first) if file.is_file()), None)
    if change is not None:
        tried = missing[:_TRIED]
        fitting = [next((f for f, c in _candidates(path) if c == change), path) for path in tried]
        found = [file for file in fitting if file.is_file()]
        return f"{said}; {len(found)} of {len(tried)} that were looked for are found {change}, such as {found[0]}"
    folders = [] if absent is None else [p.name for p in _folders(absent.parent)]
    return said + (did_you_mean(absent.name, folders) if absent and folders else "")


def _candidates(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield where a missing file may lie instead, and by which change of its path."""
    parts = [part for part in re.split(r"[\\/]", str(path.absolute())) if part]
    slashes = ["with slashes instead of backslashes"] if "\\" in str(path) else []
    folders = [i for i in range(len(parts) - 1, -1, -1) if Path("/", *parts[:i]).is_dir()]
    for form in ("NFC", "NFD"):
        for other in (path.with_name(unicodedata.normalize(form, path.name)), unicodedata.normalize(form, str(path))):
            if other != path:
                yield Path(other), f"in the Unicode form {form}"
    for i in folders:
        folder = Path("/", *parts[:i])
        for j in range(i, len(parts)):
            without = [f"without {'/'.join(parts[i:j])!r} after {folder}"] if j > i else []
            if slashes or without:
                yield folder.joinpath(*parts[j:]), " and ".join(slashes + without)
    for folder in (Path("/", *parts[:i]) for i in folders[:2]):  # the nearest folder and its neighbours
        for suffix in _ENDINGS:
            yield (folder / parts[-1]).with_suffix(suffix), f"with the ending {suffix}"
        for sub in _folders(folder):
            yield sub / parts[-1], f"in the folder {sub}"


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(e.name for e in entries if e.is_dir())[:_LISTED]]
