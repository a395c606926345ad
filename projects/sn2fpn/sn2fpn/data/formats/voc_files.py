"""The files of a Pascal VOC folder or of a folder of its XML files: lists of images, and the classes in all files."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from ...errors import UserError, counted, did_you_mean
from ..files import files_ending_in, walk
from ..problems import BUILT_IN_HINT, Problems
from ..readings import depends_on
from .source import Source, read_text
from .voc_xml import parse_xml, text_of

__all__ = ["find_ids", "find_lists", "find_splits", "find_voc_classes", "is_plain", "remark_nested", "xml_of"]


def is_plain(root: Path) -> bool:
    """Return whether a folder holds XML files instead of VOC's folders."""
    return not (root / "ImageSets").is_dir() and bool(files_ending_in(root, ".xml"))


def xml_of(annotations: Path, file_id: str) -> Path:
    """Return the XML file of an id, which need not exist. Its ending may be in capital letters."""
    usual, other = annotations / f"{file_id}.xml", annotations / f"{file_id}.XML"
    is_other = not os.path.isfile(usual) and os.path.isfile(other)  # noqa: PTH113 - a long name is no error here
    return other if is_other else usual


def find_ids(source: Source) -> list[str]:
    """Return the ids of the images to read, which are the names of the XML files in a plain folder.

    Raises:
        UserError: there is no such list, or an id occurs more than once.
    """
    root = source.annotations
    if source.split is not None or not is_plain(root):
        return _read_split(root, source.split or "")
    depends_on(root)
    return _each_once([path.stem for path in files_ending_in(root, ".xml")], root)


def remark_nested(root: Path, problems: Problems) -> None:
    """Remark the XML files in the folders in a plain folder, which are not read."""
    nested = [path for path in _walk_xml(root) if path.parent != root]
    if nested:
        files = counted(len(nested), "XML file lies", "XML files lie")
        what = f"{files} in folders below, such as {nested[0]}; only those in the folder itself are read"
        problems.remark(root, what, is_note=True)


def find_lists(root: Path) -> list[str]:
    """Return the names of all lists in `ImageSets/Main` of a VOC folder."""
    return sorted(path.stem for path in files_ending_in(root / "ImageSets" / "Main", ".txt"))


def find_splits(root: Path) -> list[str]:
    """Return the names of the lists in `ImageSets/Main` of a VOC folder, without the lists of single classes."""
    names = find_lists(root)
    return [name for name in names if not any(name.endswith(f"_{other}") for other in names)]


def find_voc_classes(dirname: str | Path) -> list[str]:
    """Return the sorted class names of all objects in a VOC folder, so that all splits share one list of classes.

    Raises:
        UserError: there is no folder `Annotations` and no XML file, a file is broken, or there is no object.
    """
    root = Path(dirname)
    plain = is_plain(root)
    folder = root if plain else root / "Annotations"
    if not folder.is_dir():
        raise UserError(f"{folder}: folder of the VOC annotations does not exist")
    found: set[str] = set()
    depends_on(folder)
    with Problems(f"classes of {dirname}") as problems:
        for xml_file in files_ending_in(folder, ".xml") if plain else _walk_xml(folder):
            try:
                found.update(text_of(obj, "name") or "" for obj in parse_xml(xml_file).iter("object"))
            except UserError as e:
                problems.refuse(xml_file, str(e).removeprefix(f"{xml_file}: "))
    found.discard("")
    if not found:
        raise UserError(f"{folder}: no object with a name in any XML file")
    return sorted(found)


def _walk_xml(folder: Path) -> list[Path]:
    """Return the XML files in a folder and in the folders in it."""
    return [root / name for root, names in walk(folder) for name in names if name.lower().endswith(".xml")]


def _read_split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    depends_on(path)
    if not path.is_file():
        splits = [p.stem for p in files_ending_in(path.parent, ".txt")]
        hint = did_you_mean(split, splits) if splits else BUILT_IN_HINT
        raise UserError(f"{path}: list of the VOC split does not exist{hint}")
    lines = read_text(path).splitlines()
    ids = [_split_id(line.strip(), root / "Annotations") for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty")
    return _each_once(ids, path)


def _each_once(ids: list[str], path: Path) -> list[str]:
    """Return the ids of a list or folder, of which none may occur twice."""
    repeated = [file_id for file_id, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(
            f"{path}: {counted(len(repeated), 'id occurs', 'ids occur')} more than once, such as {repeated[0]!r}; "
            "a data set contains each image once"
        )
    return ids


def _split_id(line: str, annotations: Path) -> str:
    """Return the id of a line, which is "<id>", or "<id> <-1|0|1>" in the lists of single classes.

    An id may contain spaces, so that a last number is only removed if no file has the whole line as its name.
    """
    with_flag = re.fullmatch(r"(.*\S)\s+(-1|0|1)", line)
    return with_flag[1] if with_flag and not xml_of(annotations, line).is_file() else line
