"""Data sets that are Python objects, such as those of the library `datasets` of Hugging Face."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...atomic import atomic_path, atomic_write
from ...errors import ArgumentError, check_choice
from ..catalog import DatasetCatalog, MetadataCatalog
from ..images import is_unchanged, read_image_size
from ..problems import Problems, Unusable
from ..readings import read_once
from ..records import DatasetDicts
from ..values import clean_name, is_number, read_flag, read_whole
from .found import Found, FoundObject, add_objects, check_size, finish, names_in_use
from .source import Source, clean_names

__all__ = ["BOX_FORMATS", "register_examples"]

BOX_FORMATS = ("xywh", "xyxy", "cxcywh")
"""The meanings of four numbers, all of them pixels: the corner x, y with width and height, two corners, or the centre
with width and height."""

_FLAGS = {"iscrowd": "iscrowd", "is_crowd": "iscrowd", "difficult": "difficult"}


def register_examples(
    name: str,
    examples: Iterable[Mapping[str, Any]],
    image_folder: str | Path,
    *,
    box_format: str = "xywh",
    class_names: Sequence[str] | None = None,
) -> None:
    """Register a sequence of examples as a data set, such as one split of a Hugging Face data set.

    The examples are read when the data set is used, once in each process. An example has these keys:

    - `image`: the path of a file, a mapping with the `path` of a file or with the `bytes` of one, or a PIL image. An
      image that is no file yet is written to `image_folder` under a name that its content decides.
    - `objects`: a mapping of the lists `bbox` and `category`, or a list of mappings with `bbox` and `category`. Without
      this key, an image is good for prediction only. `iscrowd` and `difficult` are kept if they are there.
    - `image_id`: optional; by default the number of the example.

    Args:
        name: the name of the data set, for instance for `DATASETS.TRAIN`.
        examples: any object that yields the examples, each time in the same order.
        image_folder: the folder for images that are no files. It is made if it is needed.
        box_format: what the four numbers of a `bbox` mean; see `BOX_FORMATS`.
        class_names: the class names by the numbers in `category`. By default they are those that the `features` of a
            Hugging Face data set list, or else the sorted texts in `category`.

    Raises:
        ArgumentError: the name is not usable as the name of a folder or is taken, or `box_format` is unknown.
        UserError: `class_names` are no different texts or whole numbers.

    Example:
        >>> boxes = {"bbox": [[4, 5, 20, 30]], "category": ["cup"]}
        >>> register_examples("cups", [{"image": "cups/1.jpg", "objects": boxes}], "cups/written")
        >>> DatasetCatalog.remove("cups")
    """
    check_choice("box_format", box_format, BOX_FORMATS)
    names = None if class_names is None else tuple(clean_names(class_names, "class_names"))

    def read(source: Source) -> tuple[DatasetDicts, dict[str, Any]]:
        return _read(source, examples, box_format)

    source = Source(name, Path(f"examples of {name!r}"), Path(image_folder), classes=names)
    DatasetCatalog.register(name, lambda: read_once(name, read, source))
    MetadataCatalog.get(name).set(evaluator_type="coco")
    if names is not None:
        MetadataCatalog.get(name).set(thing_classes=list(names))


def _read(source: Source, examples: Any, box_format: str) -> tuple[DatasetDicts, dict[str, Any]]:
    records: DatasetDicts = []
    found: list[list[Found] | None] = []
    files: dict[Any, str] = {}
    with Problems(f"data set {source.name!r}") as problems:
        for i, example in enumerate(examples):
            try:
                records.append(record := _image_record(example, i, source))
                if (other := files.setdefault(record["image_id"], record["file_name"])) != record["file_name"]:
                    both = f"both {other} and {record['file_name']} have the image_id {record['image_id']!r}"
                    raise ValueError(f"{both}; expected an id of its own for each image")
                found.append(None if example.get("objects") is None else list(_objects(example, i, box_format)))
            except ValueError as e:
                problems.refuse(source.annotations, f"example {i}: {e}")
                del records[len(found) :]
        classes = list(source.classes or _listed_names(getattr(examples, "features", None)) or ())
        classes = classes or sorted(names_in_use(item for objects in found for item in objects or ()))
        if not classes:
            raise ArgumentError("class_names", f"expected the class names of data set {source.name!r}, found none")
        class_ids = {name: i for i, name in enumerate(classes)}
        for record, objects in zip(records, found):
            if objects is not None:
                add_objects(record, objects, class_ids, source.annotations, problems)
        finish(records, problems, source, classes)
    return records, {"thing_classes": classes}


def _image_record(example: Any, index: int, source: Source) -> dict[str, Any]:
    if not isinstance(example, Mapping) or example.get("image") is None:
        found = f"the keys {sorted(map(str, example))}" if isinstance(example, Mapping) else type(example).__name__
        raise ValueError(f"expected a mapping with an 'image' and 'objects', found {found}")
    assert source.images is not None
    file_name = _image_file(example["image"], source.images)
    height, width = check_size(*read_image_size(file_name), file_name)
    image_id = example.get("image_id")
    image_id = index if image_id is None else _plain(image_id)
    return {"file_name": file_name, "image_id": image_id, "height": height, "width": width}


def _image_file(image: Any, folder: Path) -> str:
    """Return the path of an image, which is written to a folder if it is no file."""
    if isinstance(image, (str, Path)):
        return str(image)
    if isinstance(image, Mapping):
        path, data = image.get("path"), image.get("bytes")
        if isinstance(data, bytes):  # "path" is then only a name, which another file may have
            return _written(data, folder)
        if path and os.path.isfile(path):  # noqa: PTH113 - a name that is too long is no error here
            return str(path)
        raise ValueError(f"image: there is no file {path!r}, and no bytes")
    if not isinstance(image, Image.Image):
        expected = "expected a path, a PIL image, or a mapping with 'path' or 'bytes'"
        raise ValueError(f"image: {expected}, found {type(image).__name__}")
    path = getattr(image, "filename", "")
    if path and Path(path).is_file() and is_unchanged(image, path):
        return str(path)
    form = (image.mode, image.size, *(image.getpalette() or ()))
    target = folder / f"{_digest(image.tobytes() + repr(form).encode())}.png"
    if not target.is_file():
        try:
            with atomic_path(target) as temporary:
                picture = image.convert("RGB") if image.mode in ("CMYK", "YCbCr") else image  # PNG has neither
                picture.save(temporary, "PNG", exif=b"")  # its pixels are not turned when they are read
        except (OSError, ValueError) as e:
            raise ValueError(f"image: cannot be written as PNG: {e}") from None
    return str(target)


def _written(data: bytes, folder: Path) -> str:
    """Write the bytes of an image file, unless they have been written before, and return the path."""
    try:
        ending = (Image.open(io.BytesIO(data)).format or "").lower()
    except Exception as e:  # PIL raises errors of many types for damaged files
        raise ValueError(f"image: the bytes are not decodable as an image: {e}") from None
    target = folder / f"{_digest(data)}.{'jpg' if ending == 'jpeg' else ending}"
    if not target.is_file():
        with atomic_write(target, "wb") as file:
            file.write(data)
    return str(target)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def _objects(example: Mapping[str, Any], index: int, box_format: str) -> Iterator[Found]:
    for i, item in enumerate(_as_rows(example["objects"])):
        category = _plain(item["category"])
        if isinstance(category, str):
            category = clean_name(category)
        elif isinstance(category, float) and (number := read_whole(category)) is not None:
            category = number
        try:
            found: FoundObject | Unusable = _object(item, category, box_format)
        except Unusable as e:
            found = e
        yield f"example {index}, object {i} ({category})", found


def _as_rows(objects: Any) -> list[Mapping[str, Any]]:
    """Return objects that may be a mapping of lists as a list of mappings."""
    if isinstance(objects, Mapping):
        columns = {str(key): list(values) for key, values in objects.items() if hasattr(values, "__len__")}
        lengths = {key: len(columns[key]) for key in ("bbox", "category") if key in columns}
        if len(lengths) < 2 or len(set(lengths.values())) > 1:
            found = f"keys {sorted(columns)}" if len(lengths) < 2 else f"lengths {lengths}"
            raise ValueError(f"objects: expected the lists 'bbox' and 'category' of the same length, found {found}")
        count = lengths["bbox"]
        used = {key: values for key, values in columns.items() if len(values) == count}
        return [{key: values[i] for key, values in used.items()} for i in range(count)]
    rows = list(objects) if isinstance(objects, Sequence) and not isinstance(objects, str) else [objects]
    wrong = next((row for row in rows if not isinstance(row, Mapping) or not {"bbox", "category"} <= row.keys()), None)
    if wrong is not None:
        raise ValueError(f"objects: expected mappings with 'bbox' and 'category', found {str(wrong)[:80]}")
    return rows


def _object(item: Mapping[str, Any], category: Any, box_format: str) -> FoundObject:
    """Return an object. An Unusable says why it is left out."""
    box = _plain(item["bbox"])
    box = list(box) if isinstance(box, (list, tuple)) else []
    if len(box) != 4 or not all(map(is_number, box)):
        raise Unusable("without a valid box", f"bbox: expected four finite numbers, found {str(item['bbox'])[:80]}")
    if not isinstance(category, (int, str)) or isinstance(category, bool):
        raise Unusable("of an unknown class", f"category: expected a number or a name, found {category!r}")
    flags = {}
    for key, flag in _FLAGS.items():
        try:
            if read_flag(_plain(item.get(key)), key):
                flags[flag] = 1
        except ValueError as e:
            raise Unusable(f"with an unclear {key}", str(e)) from None
    return FoundObject(category, _corners(box, box_format), None, flags)


def _corners(box: list[float], box_format: str) -> list[float]:
    x, y, w, h = box
    if box_format == "xyxy":
        return box
    left, top = (x, y) if box_format == "xywh" else (x - w / 2, y - h / 2)
    return [left, top, left + w, top + h]


def _plain(value: Any) -> Any:
    """Return an array, a tensor or a number of NumPy as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value


def _listed_names(features: Any) -> list[str]:
    """Return the class names in the features of a Hugging Face data set, whose `category` has `names`."""
    objects = features.get("objects") if isinstance(features, Mapping) else None
    while not isinstance(objects, Mapping) and hasattr(objects, "feature"):  # a list of objects
        objects = objects.feature
    category = objects.get("category") if isinstance(objects, Mapping) else None
    while not hasattr(category, "names") and hasattr(category, "feature"):  # an object of lists
        category = category.feature
    return [clean_name(str(name)) for name in getattr(category, "names", None) or ()]
