"""The reading of single values from annotation files, which other programs write in many forms."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

__all__ = ["clean_name", "is_number", "read_flag", "read_whole"]

_FLAGS = {
    **dict.fromkeys(("0", "0.0", "false", "null", "none", ""), False),
    **dict.fromkeys(("1", "1.0", "true"), True),
}
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_LARGEST = 2**63 - 1  # numpy and pycocotools keep ids as 64-bit integers


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number. An integer that no float can hold is not."""
    try:
        kind = type(value)
        return (kind is float or kind is int) and math.isfinite(value)
    except OverflowError:
        return False


def read_flag(value: Any, name: str) -> bool:
    """Read a flag that is written as 0, 1, true, false or null, as a value or as text. None means false.

    Args:
        value: the value.
        name: the name of the flag, for the message.

    Raises:
        ValueError: the value is something else.
    """
    if type(value) is int and 0 <= value <= 1:  # as nearly all are
        return bool(value)
    text = "" if value is None else str(value).strip().lower() if isinstance(value, (str, int, float)) else "?"
    if text not in _FLAGS:
        raise ValueError(f"{name} is {value!r}, expected 0, 1, true, false or null")
    return _FLAGS[text]


def read_whole(value: Any) -> int | None:
    """Read a whole number that is written as 1, 1.0 or text; return None for anything else and beyond 64 bits."""
    if type(value) is int and -_LARGEST <= value <= _LARGEST:  # as nearly all are
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) <= _LARGEST else None


def clean_name(name: str) -> str:
    """Return a name on one line: control characters and line breaks become spaces, and spaces do not repeat.

    Names of classes appear in tables, logs, file names and JSON files, which such characters would break.

    Example:
        >>> clean_name(" traffic\\n  light\\x00")
        'traffic light'
    """
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name).split())
