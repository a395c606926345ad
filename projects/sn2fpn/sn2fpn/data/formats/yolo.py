"""The reader of YOLO's text files, of which a file `data.yaml` names the folders and the classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ...config.yaml_limits import LimitedLoader
from ...errors import ArgumentError, UserError, counted, counted_of, did_you_mean
from ..files import IMAGE_SUFFIXES, files_ending_in, path_inside, walk
from ..images import read_image_size
from ..problems import Problems
from ..readings import depends_on
from ..records import DatasetDicts
from ..values import read_whole
from .found import add_objects, check_size, finish
from .source import CLASS_LIST, Source, choose_split, clean_names, read_text
from .yolo_labels import TRACKED, is_triangle, read_labels

__all__ = ["find_yaml", "read_yolo", "yolo_splits"]

_SPLITS = ("train", "val", "test")
_YAML = "a YOLO file with the keys train, val and names"


class _Set(NamedTuple):
    """What a YAML file says."""

    file: Path
    root: Path  # the folder that the paths of the images are relative to
    paths: dict[str, list[str]]  # of the folders and lists of images, by split
    names: list[str]
    has_keypoints: bool


def read_yolo(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return data set dicts, and the classes as metadata.

    The labels of an image lie in the file whose path is that of the image with the last folder `images` replaced by
    `labels` and with the ending `.txt`, or beside the image if there is no such folder. Each line has the number of a
    class and either the centre, width and height of a box or the points of a polygon, in fractions of the image. An
    image without such a file has no objects. If no image has one, the data set dicts have no annotations and are good
    for prediction only. A polygon is the mask of an object, whose box is the tight one. Keypoints are not read.

    Args:
        source: its `annotations` are the YAML file or the folder that has it. `images` replaces the folder that `path`
            names in this file. `split` is "train", "val" or "test".

    Raises:
        UserError: a file or folder is missing or unreadable, or a path leads outside of the folder of the YAML file.
    """
    content = _read_set(source)
    split = choose_split(source, list(content.paths))
    if split not in content.paths:
        raise ArgumentError("SPLIT", f"{content.file} has no images for {split!r}{did_you_mean(split, content.paths)}")
    class_ids = {name: i for i, name in enumerate(content.names)}
    records, absent, triangles, read = [], [], [], set()
    with Problems(f"data set {source.name!r}") as problems:
        for image_id, image in _find_images(content, split, source.allow_outside):
            labels = _label_file(image, content.root)
            read.add(labels)
            try:
                height, width = check_size(*read_image_size(image), str(image))
                record = {"file_name": str(image), "image_id": image_id, "height": height, "width": width}
                found = list(read_labels(labels, record, content.has_keypoints))
            except ValueError as e:
                file = labels if str(e).startswith(f"{labels}: ") else image
                problems.refuse(file, str(e).removeprefix(f"{file}: "))
                continue
            if not labels.is_file():
                absent.append(labels)
            triangles += [labels for _, item in found if is_triangle(item)]
            add_objects(record, found, class_ids, labels, problems)
            records.append(record)
        _remark_absent(absent, records, content.file, problems)
        _remark_triangles(triangles, content.file, problems)
        if all(place.is_dir() for place in _places(content, split, source)):  # a list may leave images out on purpose
            _remark_unread(read, content.file, problems)
        finish(records, problems, source, content.names)
    if len(absent) == len(records):
        records = [{k: v for k, v in record.items() if k != "annotations"} for record in records]
    return records, {"thing_classes": content.names}


def _remark_absent(absent: list[Path], records: DatasetDicts, file: Path, problems: Problems) -> None:
    if not absent:
        return
    meaning = "such an image counts as one without objects"
    if len(absent) == len(records):
        meaning = "the data set is good for prediction only"
    what = f"{counted_of(len(absent), len(records), 'image', 'has/have')} no label file, such as {absent[0]}; {meaning}"
    problems.remark(file, what, is_note=True)


def _remark_triangles(triangles: list[Path], file: Path, problems: Problems) -> None:
    """Remark that lines with 7 numbers are taken for triangles. Trackers write such lines with another meaning."""
    if triangles:
        lines = counted(len(triangles), "line has", "lines have")
        meaning = f"which are read as a polygon of three points; {TRACKED}"
        problems.remark(file, f"{lines} 6 numbers after the class, such as in {triangles[0]}, {meaning}", is_note=True)


def _remark_unread(read: set[Path], file: Path, problems: Problems) -> None:
    """Remark the label files beside those that were read, whose images are missing or have other names."""
    beside = (path for folder in {path.parent for path in read} for path in files_ending_in(folder, ".txt"))
    unread = sorted(path for path in beside if path not in read and path.name != CLASS_LIST)
    if unread:
        files = counted(len(unread), "label file has", "label files have")
        what = f"{files} no image, such as {unread[0]}; the objects in them are left out"
        problems.remark(file, what, is_note=True)


def yolo_splits(source: Source) -> list[str]:
    """Return the splits that a YAML file names."""
    return list(_read_set(source).paths)


def find_yaml(path: Path) -> Path:
    """Return the YAML file of a data set, which is `path` itself or lies in this folder.

    Raises:
        UserError: the folder has no such file, or several.
    """
    if not path.is_dir():
        return path
    files = files_ending_in(path, ".yaml", ".yml")
    usual = [p for p in files if p.stem == "data"] or files
    if len(usual) != 1:
        found = ", ".join(p.name for p in usual) or "none"
        raise UserError(f"{path}: expected one YAML file that describes the data set, such as data.yaml, found {found}")
    return usual[0]


def _read_set(source: Source) -> _Set:
    file = find_yaml(source.annotations)
    try:
        content = yaml.load(read_text(file), LimitedLoader)
    except yaml.YAMLError as e:
        raise UserError(f"{file}: not readable as YAML: {e}") from None
    if not isinstance(content, dict) or "names" not in content:
        found = f"the keys {sorted(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file}: expected {_YAML}, found {found}")
    paths = {key: _texts(content[key], file, key) for key in _SPLITS if content.get(key)}
    path = content.get("path") or "."
    if not isinstance(path, str):
        raise UserError(f"{file}: path: expected the path of a folder, found {path!r}")
    root = source.images or _inside(file.parent, path, file, source)
    return _Set(file, root, paths, _class_names(content, file), bool(content.get("kpt_shape")))


def _texts(value: Any, file: Path, key: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) and v for v in values):
        raise UserError(f"{file}: {key}: expected a path or a list of paths, found {value!r}")
    return values


def _class_names(content: dict[str, Any], file: Path) -> list[str]:
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{file}: names: expected the numbers 0 to {len(names) - 1} as keys, found {list(names)}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(
            f"{file}: names: expected a list of classes, or a mapping from 0, 1, … to them, found {names!r}"
        )
    cleaned = clean_names(names, f"{file}: names")
    if content.get("nc") is not None and read_whole(content["nc"]) != len(cleaned):
        raise UserError(f"{file}: nc is {content['nc']!r}, but names has {counted(len(cleaned), 'class', 'classes')}")
    return cleaned


def _inside(folder: Path, name: str, file: Path, source: Source) -> Path:
    try:
        return Path(path_inside(folder, name, source.allow_outside))
    except ValueError as e:
        raise UserError(f"{file}: {e}") from None


def _find_images(content: _Set, split: str, allow_outside: bool) -> Iterator[tuple[str, Path]]:
    """Yield the images of a split with their ids, which are their paths without ending below the folder of the split.

    With several folders, the paths are relative to the folder of the data set.
    """
    source = Source("", content.file, allow_outside=allow_outside)
    places = _places(content, split, source)
    base = places[0] if len(places) == 1 and places[0].is_dir() else content.root
    seen: dict[str, Path] = {}
    for place in places:
        images = _walk(place) if place.is_dir() else _read_list(place, content, source)
        for image in images:
            image_id = Path(os.path.relpath(image, base)).with_suffix("").as_posix()
            if image_id in seen:
                raise UserError(f"{content.file}: {seen[image_id]} and {image} have the same label file")
            seen[image_id] = image
            yield image_id, image
    if not seen:
        raise UserError(f"{content.file}: {split}: no image in {', '.join(map(str, places))}")


def _places(content: _Set, split: str, source: Source) -> list[Path]:
    """Return the folders and lists of the images of a split."""
    return [_place(content, name, split, source) for name in content.paths[split]]


def _place(content: _Set, name: str, split: str, source: Source) -> Path:
    """Return a folder or a list of images. Some programs write "../train/images" for a folder beside the YAML file."""
    names = [name, name.removeprefix("../")]
    for tried in names:
        if os.path.exists(content.root / tried):  # noqa: PTH110 - a name that is too long is no error here
            return _inside(content.root, tried, content.file, source)
    raise UserError(f"{content.file}: {split}: {content.root / name} does not exist")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and the folders in it, sorted."""
    for root, names in walk(folder):
        yield from (root / name for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def _read_list(file: Path, content: _Set, source: Source) -> Iterator[Path]:
    """Yield the images that a text file lists, whose paths are relative to it."""
    for line in read_text(file).splitlines():
        if name := line.strip():
            relative = os.path.relpath(file.parent / name, content.root)
            yield _inside(content.root, relative, file, source)


def _label_file(image: Path, root: Path) -> Path:
    """Return the path of the labels of an image, whose file need not exist.

    They lie in the folder `labels` in place of `images` or, where there is none, beside the image. A folder `images`
    that the root lies in counts if it has labels beside it, because the root may be that folder.
    """
    parts = image.parts
    whole, base = (Path(os.path.normpath(path.absolute())) for path in (image, root))  # one of them may be relative
    known = len(parts) - len(whole.relative_to(base).parts) if whole.is_relative_to(base) else 0
    named = [i for i in range(len(parts) - 2, -1, -1) if parts[i] == "images"]
    files = [Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt") for i in named]
    beside = image.with_suffix(".txt")
    if files and named[0] >= known:
        depends_on(files[0].parent)
        depends_on(beside)
        return beside if beside.is_file() and not files[0].parent.is_dir() else files[0]
    if files:
        depends_on(files[0])
    return files[0] if files and files[0].is_file() else beside
