"""The recognition of the format of a file or folder, by names and by the beginning of a file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError, did_you_mean, nearby_files
from ..files import files_ending_in

__all__ = ["AUTO", "Place", "find_places"]

AUTO = "auto"
"""The value of `FORMAT` for the format that a file or folder looks like."""

_PEEKED = 1 << 16  # bytes at the beginning and at the end of a file
_WHOLE_FILES = ("coco", "lvis")  # the formats whose parts are files
_OF_FILES = (*_WHOLE_FILES, "cvat")  # the formats whose readers take a file, which may be looked for in a folder
_OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")  # of COCO's files
_EXPECTED = (
    "expected a COCO or LVIS file (.json) or a folder `annotations` with such files, YOLO's data.yaml or its folder, "
    "a VOC folder (Annotations, ImageSets/Main) or a folder of its XML files, a folder of LabelMe's JSON files, or "
    "CVAT's XML file"
)


class Place(NamedTuple):
    """Where the annotations of a data set lie, as a format's reader takes it."""

    format: str
    annotations: Path
    split: str | None = None  # the part that the file is, where the parts of a data set are files


def find_places(path: Path, data_format: str = AUTO, split: str | None = None) -> list[Place]:
    """Return what a file or folder can be, once for each format and file. Files are not parsed.

    Args:
        path: the file or folder.
        data_format: the format, by which a file is taken as it is, and the files of a folder are chosen.
        split: the part of a COCO data set, such as "val2017", where a folder has a file for each.

    Raises:
        UserError: there is no such file, folder or part, or it does not look like the format or like any.
    """
    if data_format != AUTO and not (data_format in _OF_FILES and path.is_dir()):
        return [Place(data_format, path)]
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder{nearby_files(path, '*.*')}")
    places = list(dict.fromkeys(_in_folder(path) if path.is_dir() else _in_file(path)))
    if data_format != AUTO:
        alike = _WHOLE_FILES if data_format in _WHOLE_FILES else (data_format,)
        places = list(dict.fromkeys(p._replace(format=data_format) for p in places if p.format in alike))
        if not places:
            raise UserError(f"{path}: expected a file in the format {data_format}, found {_contents(path)}")
    if not places:
        raise UserError(f"{path}: the format is not recognised; {_EXPECTED}; found {_contents(path)}")
    chosen = [p for p in places if split is None or p.split in (None, split) or p.annotations.stem == split]
    if not chosen:
        raise UserError(f"{path}: there is no part {split!r}{did_you_mean(str(split), (str(p.split) for p in places))}")
    return chosen


def _in_file(path: Path) -> Iterator[Place]:
    text = _peek(path)
    match path.suffix.lower():
        case ".json":
            if b'"shapes"' in text and (b'"imagePath"' in text or b'"imageHeight"' in text):
                yield Place("labelme", path.parent)
            elif any(key in text for key in (b'"neg_category_ids"', b'"not_exhaustive_category_ids"', b'"synset"')):
                yield Place("lvis", path)
            elif any(key in text for key in (b'"images"', b'"annotations"', b'"categories"')):
                yield Place("coco", path)
        case ".xml":
            if b"<annotations" in text:
                yield Place("cvat", path)
            elif b"<annotation" in text:
                yield Place("voc", path.parent)
        case ".yaml" | ".yml":
            if b"names" in text:
                yield Place("yolo", path)


def _in_folder(path: Path) -> Iterator[Place]:
    for file in files_ending_in(path, ".yaml", ".yml"):
        yield from (place._replace(annotations=path) for place in _in_file(file))
    if (path / "Annotations").is_dir() or (path / "ImageSets").is_dir():
        yield Place("voc", path)
    yield from _in_files(files_ending_in(path, ".xml"))
    files = files_ending_in(path, ".json")
    beside = list(_in_files(files))
    below = [p for p in _in_files(files_ending_in(path / "annotations", ".json")) if p.format in _WHOLE_FILES]
    beside, below = _instances(beside), _instances(below)
    whole = [place.annotations.name for place in beside if place.format in _WHOLE_FILES]
    has_parts = below or len(whole) > 1 or any(name.startswith("instances_") for name in whole)
    for place in [*beside, *below]:
        is_part = has_parts and place.format in _WHOLE_FILES
        yield place._replace(split=place.annotations.stem.removeprefix("instances_")) if is_part else place
    if not files:
        nested = (f for folder in sorted(path.glob("[!.]*")) for f in files_ending_in(folder, ".json"))
        yield from (Place("labelme", path) for p in _in_files(islice(nested, 1)) if p.format == "labelme")


def _instances(places: list[Place]) -> list[Place]:
    """Return what the files of a folder can be, without those that COCO has beside its `instances_*.json`."""
    if not any(place.annotations.name.startswith("instances_") for place in places):
        return places
    return [place for place in places if not place.annotations.name.startswith(_OTHER_TASKS)]


def _in_files(files: Iterable[Path]) -> Iterator[Place]:
    """Yield what the files of a folder can be, up to the first one that stands for the whole folder."""
    for file in files:
        for place in _in_file(file):
            yield place
            if place.annotations != file:  # the others are of the same format, and there may be thousands
                return


def _peek(path: Path) -> bytes:
    """Return the beginning and the end of a file."""
    try:
        with path.open("rb") as file:
            start = file.read(_PEEKED)
            file.seek(max(len(start), os.fstat(file.fileno()).st_size - _PEEKED))
            return start + file.read()
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e}") from None


def _contents(path: Path) -> str:
    """Return what a folder holds, or that it is a file, for a message."""
    if not path.is_dir():
        return "a file without their content"
    endings = Counter(("folders" if p.is_dir() else p.suffix or "files without ending") for p in path.iterdir())
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common(6)) or "an empty folder"
