"""The check of data set dicts that functions of the user's own return."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UserError, shortened
from ..structures import BoxMode, box_of
from .masks import OutsideImage, as_lists, check_segmentation
from .values import is_number, read_flag, read_whole

__all__ = ["check_given"]

_IN_PIXELS = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
_REQUIRED = ("file_name", "height", "width", "image_id")


def check_given(records: Any, classes: range | None, source: str) -> Any:
    """Return what a function has returned, if it is a list of dicts with objects that can be trained on.

    Numbers of NumPy, numbers as text and paths become Python's numbers and texts, which files of results can hold, and
    polygons that are arrays become lists. Without any, the result is the list itself.

    Args:
        records: what the function has returned; it is not changed.
        classes: the valid numbers of classes, or None if the classes are not known.
        source: the data set, for messages.

    Raises:
        UserError: it is something else, or two files have the same id.
    """
    if not hasattr(records, "__getitem__") or isinstance(records, str | Mapping):
        raise UserError(f"{source}: expected a list of dicts from its function, found {type(records).__name__}")
    files: dict[Any, str] = {}
    checked, is_plain = [], True
    for i, given in enumerate(records):
        record = _check_record(given, classes, f"{source}: [{i}]", source)
        image_id, file = record["image_id"], record["file_name"]
        if (other := files.setdefault(image_id, file)) != file:  # a training may see an image several times
            both = f"both {other} and {file} have the image_id {image_id!r}"
            raise UserError(f"{source}: {both}; expected an id of its own for each image")
        is_plain = is_plain and record is given
        checked.append(record)
    return records if is_plain else checked


def _check_record(record: Any, classes: range | None, place: str, source: str) -> Any:
    if not isinstance(record, Mapping):
        raise UserError(f"{place}: expected a dict that describes an image, found {shortened(repr(record))}")
    if lacking := [key for key in _REQUIRED if key not in record]:
        raise UserError(f"{place}: expected {', '.join(_REQUIRED)}, found no {' and no '.join(lacking)}")
    record = _plain(record)
    try:
        record = _with(record, _image_values(record))
    except ValueError as e:
        raise UserError(f"{place}: {e}") from None
    annotations = record.get("annotations", ())
    plain = []
    for j, annotation in enumerate(annotations):
        try:
            plain.append(_check_object(annotation, classes, (record["height"], record["width"])))
        except ValueError as e:
            raise UserError(f"{source}: {record['file_name']}: annotations[{j}]{e}") from None
    return record if all(p is a for p, a in zip(plain, annotations)) else {**record, "annotations": plain}


def _plain(values: Any) -> Any:
    """Return a mapping whose numbers of NumPy and paths are Python's numbers and texts."""
    changed = {key: value.item() for key, value in values.items() if isinstance(value, np.generic)}
    if isinstance(values.get("file_name"), os.PathLike):
        changed["file_name"] = os.fspath(values["file_name"])
    return {**values, **changed} if changed else values


def _with(values: Any, checked: Mapping[str, Any]) -> Any:
    """Return a mapping with the checked values, which is itself if they are its own."""
    return values if all(values[key] is value for key, value in checked.items()) else {**values, **checked}


def _image_values(record: Mapping[str, Any]) -> dict[str, int]:
    """Return the height and the width of an image. A ValueError says what is wrong with its values."""
    if not isinstance(record["image_id"], Hashable):
        raise ValueError(f"image_id: expected a number or a text, found {shortened(repr(record['image_id']))}")
    if not isinstance(record["file_name"], str):
        raise ValueError(f"file_name: expected the path of an image, found {shortened(repr(record['file_name']))}")
    annotations = record.get("annotations", ())
    if not isinstance(annotations, Sequence | np.ndarray) or isinstance(annotations, str):
        found = f"found {shortened(repr(annotations))}; leave the key out if the objects are not known"
        raise ValueError(f"annotations: expected a list of dicts, which may be empty, {found}")
    sizes = {}
    for key in ("height", "width"):
        sizes[key] = number = read_whole(record[key])
        if number is None or number < 1:
            raise ValueError(f"{key}: expected a whole number of pixels, found {shortened(repr(record[key]))}")
    return sizes


def _check_object(annotation: Any, classes: range | None, size: tuple[int, int]) -> Any:
    """Return an object of an image with this height and width, with Python's values.

    A ValueError says why it cannot be used.
    """
    if not isinstance(annotation, Mapping):
        raise ValueError(f": expected a dict that describes an object, found {shortened(repr(annotation))}")
    annotation = _plain(annotation)
    number = read_whole(annotation.get("category_id"))
    if number is None or (classes is not None and number not in classes):
        expected = "a whole number" if classes is None else f"0 to {len(classes) - 1}"
        raise ValueError(f".category_id: expected {expected}, found {annotation.get('category_id')!r}")
    checked = {"category_id": number}
    for key in ("iscrowd", "difficult"):
        if key in annotation:
            checked[key] = _flag(annotation[key], key)
    if annotation.get("area", 0) is None:
        annotation = {key: value for key, value in annotation.items() if key != "area"}
    elif not is_number(annotation.get("area", 0)):
        raise ValueError(f".area: expected a number of square pixels, found {shortened(repr(annotation['area']))}")
    if annotation.get("segmentation") is not None:
        checked["segmentation"] = _segmentation(annotation["segmentation"], size, checked.get("iscrowd", 0))
    if problem := "" if _is_usual(annotation) else _box_problem(annotation):
        raise ValueError(f".{problem}")
    return _with(annotation, checked)


def _flag(value: Any, key: str) -> int:
    try:
        return int(read_flag(value, key))
    except ValueError:
        raise ValueError(f".{key}: expected 0 or 1, found {shortened(repr(value))}") from None


def _segmentation(value: Any, size: tuple[int, int], is_crowd: int) -> Any:
    """Return a segmentation as lists or RLE. One that lies outside the image is empty, which stands for none."""
    try:
        lists = as_lists(value)
        if lists and not is_crowd:
            check_segmentation(lists, *size)
        return lists
    except OutsideImage:
        return []
    except ValueError as e:
        names_it = str(e).startswith("segmentation")
        raise ValueError(f".{e}" if names_it else f".segmentation: {e}") from None


def _is_usual(annotation: Mapping[str, Any]) -> bool:
    """Return whether a box is four finite numbers in pixels, as nearly all are."""
    try:
        box = annotation["bbox"]
        return annotation["bbox_mode"] in _IN_PIXELS and len(box) == 4 and math.isfinite(sum(box))
    except (KeyError, TypeError, ValueError):
        return False


def _box_problem(annotation: Mapping[str, Any]) -> str:
    """Return why a box cannot be used, or "" if it can."""
    try:
        finite = np.isfinite(box_of(annotation)).all()
    except ValueError as e:
        return str(e)
    return "" if finite else f"bbox: expected finite numbers, found {annotation['bbox']!r}"
