"""The JSON files of a study."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from ..data.values import clean_name
from ..errors import UserError, shortened
from ..signatures import fits, type_words

__all__ = ["check_form", "read_json", "with_nested_variants", "write_json"]

_LARGEST = 1e38  # of numbers; what this project measures is below, and squares of such numbers are still finite
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, form: Any = dict) -> dict[str, Any]:
    """Return the JSON object in a file, or {} when there is no such file; a UserError names a broken file.

    Args:
        path: the file.
        form: what the file should hold; see `check_form`.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if _HALF.search(text):
            json.dumps(content, ensure_ascii=False).encode()  # raises an error for half a character
    except (OSError, ValueError, RecursionError) as e:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(
            f"{path}: cannot be read as JSON ({e}); delete the file, and the study writes it again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    check_form(content, form, path)
    return content


def check_form(value: Any, form: Any, path: Path, where: str = "") -> None:
    """Check the types of values that come from a file, which another version or a stranger may have written.

    Args:
        value: what the file holds at a place.
        form: a type or a union of types; or {key: form} for an object, in which `...` stands for all keys that are not
            named, no key must be there, and other keys may hold anything; or [form] for a list; or (form,) for what may
            also be null.
        path: the file.
        where: the place, such as "results/val".

    Raises:
        UserError: a value has another type, or a number is not finite; it names the file and the place.
    """
    form, absent = (form[0], value is None) if isinstance(form, tuple) else (form, False)
    if absent:
        return
    if isinstance(form, dict | list) and not isinstance(value, type(form)):
        kind = "an object" if isinstance(form, dict) else "a list"
        raise UserError(f"{path}: {where}: expected {kind}, found {type(value).__name__}")
    if isinstance(form, dict):
        for key, child in value.items():
            if key in form or ... in form:
                place = f"{where}/{clean_name(shortened(str(key)))}".lstrip("/")
                check_form(child, form.get(key, form.get(...)), path, place)
    elif isinstance(form, list):
        for i, child in enumerate(value):
            check_form(child, form[0], path, f"{where}[{i}]")
    elif not fits(value, form) or (isinstance(value, int | float) and abs(value) > _LARGEST):
        raise UserError(f"{path}: {where}: expected {type_words(form)}, found {shortened(repr(value))}")


def write_json(path: Path, content: Any, indent: int | None = 2, default: Callable[[Any], Any] | None = None) -> None:
    """Write a JSON file in one step, so that readers find either the old content or the new one.

    Args:
        path: the file.
        content: the values to write.
        indent: the number of spaces by which inner values are indented; None writes one line.
        default: turns a value that JSON has no form for into one that it has.
    """
    with atomic_write(path) as file:
        json.dump(content, file, indent=indent, default=default)


def with_nested_variants(features: dict[str, Any]) -> dict[str, Any]:
    """Return features.json with its variants under one key; in older files they stand beside "images" and "set"."""
    if not features or "variants" in features:
        return features
    about = {key: value for key, value in features.items() if not isinstance(value, dict)}
    return about | {"variants": {name: levels for name, levels in features.items() if isinstance(levels, dict)}}
