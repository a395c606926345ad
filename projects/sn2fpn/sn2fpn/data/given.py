"""The check of data set dicts that functions of the user's own return."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from ..errors import UserError, shortened
from ..structures import BoxMode, box_of

__all__ = ["check_given"]

_IN_PIXELS = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
_REQUIRED = ("file_name", "height", "width", "image_id")


def check_given(records: Any, classes: range | None, source: str) -> Any:
    """Return what a function has returned, if it is a list of dicts with objects that can be trained on.

    Numbers of NumPy and paths become Python's numbers and texts, which files of results can hold. Without any, the
    result is the list itself.

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
    if not isinstance(record["image_id"], Hashable):
        raise UserError(f"{place}: image_id: expected a number or a text, found {shortened(repr(record['image_id']))}")
    annotations = record.get("annotations", ())
    for j, annotation in enumerate(annotations):
        if problem := _problem(annotation, classes):
            raise UserError(f"{source}: {record['file_name']}: annotations[{j}]{problem}")
    plain = [_plain(annotation) for annotation in annotations]
    return record if all(p is a for p, a in zip(plain, annotations)) else {**record, "annotations": plain}


def _plain(values: Any) -> Any:
    """Return a mapping whose numbers of NumPy and paths are Python's numbers and texts."""
    changed = {key: value.item() for key, value in values.items() if isinstance(value, np.generic)}
    if isinstance(values.get("file_name"), os.PathLike):
        changed["file_name"] = os.fspath(values["file_name"])
    return {**values, **changed} if changed else values


def _problem(annotation: Any, classes: range | None) -> str:
    """Return why an object cannot be used, or "" if it can."""
    if not isinstance(annotation, Mapping):
        return f": expected a dict that describes an object, found {shortened(repr(annotation))}"
    if classes is not None and annotation.get("category_id") not in classes:
        return f".category_id: expected 0 to {len(classes) - 1}, found {annotation.get('category_id')!r}"
    problem = "" if _is_usual(annotation) else _box_problem(annotation)
    return f".{problem}" if problem else ""


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
