"""The files of a study: JSON files, and the locks by which its processes know of each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from ..errors import UserError
from ..locks import is_locked, locked

__all__ = ["is_locked", "locked", "read_json", "write_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or {} when there is no such file; a UserError names a broken file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(
            f"{path}: cannot be read as JSON ({e}); delete the file, and the study writes it again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a JSON file in one step, so that readers find either the old content or the new one."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=indent)
