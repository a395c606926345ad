"""The reading of JSON files, whose errors name the file and the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UserError, nearby_files
from ..catalog import data_root
from ..problems import BUILT_IN_HINT
from ..readings import depends_on

__all__ = ["list_of_objects", "read_json"]


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: the file.
        expected: what the file should be, for messages.

    Raises:
        UserError: the file is missing, truncated or not JSON, or holds something else than an object.
    """
    if not path.is_file():
        built_in = path.is_relative_to(data_root()) and not path.parent.is_dir()  # whose folder is missing as a whole
        hint = BUILT_IN_HINT if built_in else nearby_files(path, "*.json") or BUILT_IN_HINT
        raise UserError(f"{path}: annotation file does not exist{hint}")
    depends_on(path)
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as e:
        raise UserError(
            f"{path}: not readable as JSON at line {e.lineno}, column {e.colno} (character {e.pos}): "
            f"{e.msg}; is the file truncated?"
        ) from None
    except (OSError, RecursionError, ValueError) as e:  # ValueError: no UTF-8, or a number of thousands of digits
        raise UserError(f"{path}: not readable as JSON: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {expected}; found {type(content).__name__}")
    return content


def list_of_objects(content: dict[str, Any], key: str, path: Path, expected: str) -> list[Any]:
    """Return the list at a key of a JSON object, whose items are objects.

    Args:
        content: the content of the file.
        key: the key.
        path: the file, for messages.
        expected: what the file should be, for messages.

    Raises:
        UserError: there is no list at the key, or one of its items is no object.
    """
    if not isinstance(content.get(key), list):
        found = type(content[key]).__name__ if key in content else f"keys {sorted(content)}"
        raise UserError(f"{path}: expected {expected} with a list {key!r}, found {found}")
    for i, item in enumerate(content[key]):
        if not isinstance(item, dict):
            raise UserError(f"{path}: {key}[{i}] is {type(item).__name__}, expected an object")
    return content[key]
