"""The reader of LabelMe's JSON files, one for each image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..files import path_inside, walk
from ..problems import Problems, Unusable
from ..records import DatasetDicts
from ..values import clean_name, is_number, read_flag, read_whole
from .found import Found, FoundObject, add_objects, check_size, finish, join_groups, names_in_use
from .json_file import list_of_objects, read_json
from .source import CLASS_LIST, Source, read_class_list

__all__ = ["read_labelme"]

_FILE = "a LabelMe file"


def read_labelme(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
    """Return data set dicts, and the classes as metadata.

    Rectangles and polygons are objects, and polygons of one image with the same label and `group_id` are the parts of
    one object. Other shapes are left out with a warning. The flags `difficult` and `iscrowd` of a shape are kept.

    Args:
        source: its `annotations` are the folder of the JSON files, which may have folders. An image lies in this
            folder where its `imagePath` says, or in `images` under the last part of this path. Without `classes`, the
            classes are the lines of the file `classes.txt` in the folder, or else all labels that occur, sorted.

    Raises:
        UserError: a file is missing or broken, there is none, or a path leads outside of the folder.
    """
    with Problems(f"data set {source.name!r}") as problems:
        found = _read_files(source, problems)
        listed = source.classes or read_class_list(source.annotations / CLASS_LIST)
        classes = list(listed or sorted(names_in_use(item for _, _, objects in found for item in objects)))
        if not classes:
            raise UserError(f"{source.annotations}: no rectangle and no polygon with a label in any file")
        class_ids = {name: i for i, name in enumerate(classes)}
        for file, record, objects in found:
            add_objects(record, objects, class_ids, file, problems)
        records = [record for _, record, _ in found]
        finish(records, problems, source, classes)
    return records, {"thing_classes": classes}


def _read_files(source: Source, problems: Problems) -> list[tuple[Path, dict[str, Any], list[Found]]]:
    """Return the files, each with the data set dict of its image without the annotations, and with its objects."""
    found: dict[Path, tuple[Path, dict[str, Any], list[Found]]] = {}
    for file in _find_files(source.annotations):
        try:
            if (stem := file.with_suffix("")) in found:
                raise ValueError(f"{found[stem][0]} has the same name; expected one file for each image")
            found[stem] = (file, *_read_file(file, source))
        except ValueError as e:
            problems.refuse(file, str(e).removeprefix(f"{file}: "))
    return list(found.values())


def _find_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: expected the folder of LabelMe's JSON files, found no folder")
    files = [root / name for root, names in walk(folder) for name in names if name.lower().endswith(".json")]
    if not files:
        raise UserError(f"{folder}: expected LabelMe's JSON files, found none in this folder")
    return files


def _read_file(file: Path, source: Source) -> tuple[dict[str, Any], list[Found]]:
    """Return the data set dict of an image without its annotations, and its objects."""
    content = read_json(file, _FILE)
    shapes = list_of_objects(content, "shapes", file, _FILE)
    image_path = content.get("imagePath")
    if not isinstance(image_path, str) or not image_path:
        raise ValueError(f"expected the path of the image as imagePath, found {image_path!r}")
    image_path = image_path.replace("\\", "/")
    if source.images is not None:
        file_name = path_inside(source.images, image_path.rpartition("/")[2], source.allow_outside)
    else:
        try:
            name = str(file.parent.relative_to(source.annotations) / image_path)
            file_name = path_inside(source.annotations, name, source.allow_outside)
        except ValueError as e:
            raise ValueError(f"{e}; or name the folder of the images with IMAGES") from None
    height, width = (read_whole(content.get(key)) or 0 for key in ("imageHeight", "imageWidth"))
    height, width = check_size(height, width, file_name)
    image_id = file.relative_to(source.annotations).with_suffix("").as_posix()
    record = {"file_name": file_name, "image_id": image_id, "height": height, "width": width}
    return record, join_groups(_read_shapes(shapes))


def _read_shapes(shapes: list[dict[str, Any]]) -> Iterator[Found]:
    for i, shape in enumerate(shapes, 1):
        label = shape.get("label")
        name = clean_name(str(label)) if isinstance(label, (str, int, float)) else ""
        try:
            found: FoundObject | Unusable = _read_shape(shape, name)
        except Unusable as e:
            found = e
        yield f"shape {i} ({name or 'no label'})", found


def _read_shape(shape: dict[str, Any], name: str) -> FoundObject:
    """Return the object of a shape. An Unusable says why there is none."""
    if not name:
        raise Unusable("without a label", f"label: expected a text, found {shape.get('label')!r}")
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind not in ("polygon", "rectangle"):
        raise Unusable(
            f"drawn as {str(kind)[:40]}", f"the shape is a {str(kind)[:40]}, expected a rectangle or a polygon"
        )
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise Unusable(
            "without valid points", f"points: expected [[x, y], …] of finite numbers, found {str(points)[:80]}"
        )
    least = 2 if kind == "rectangle" else 3
    if len(points) < least:
        raise Unusable("without valid points", f"a {kind} needs {least} points, found {len(points)}")
    flags = _read_flags(shape)
    if kind == "polygon":
        group = shape.get("group_id")
        polygon = [float(v) for point in points for v in point]
        return FoundObject(name, None, [polygon], flags, None if group is None else str(group))
    xs, ys = zip(*points)
    return FoundObject(name, (min(xs), min(ys), max(xs), max(ys)), None, flags)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_number, point))


def _read_flags(shape: dict[str, Any]) -> dict[str, int]:
    given = shape.get("flags") if isinstance(shape.get("flags"), dict) else {}
    flags = {}
    for key in ("difficult", "iscrowd"):
        try:
            flags[key] = int(read_flag(shape.get(key, given.get(key)), key))
        except ValueError as e:
            raise Unusable(f"with an unclear {key}", str(e)) from None
    return {key: value for key, value in flags.items() if value}
