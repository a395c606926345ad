"""The values of configuration keys: how texts are read, and which values a key takes."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import UserError, shortened
from ..signatures import fits, type_words
from .own_sets import OWN_SETS, named_entries

__all__ = ["COMMAND_LINE", "checked", "checked_leaf", "decoded", "list_of", "value_at"]

COMMAND_LINE = "command line"
"""The source of values that are from no file, for messages."""

EITHER_TYPE: dict[str, Any] = {
    "MODEL.SNI.ALPHA": str | float | None,
    "SOLVER.WEIGHT_DECAY_BIAS": float | None,
    "SOLVER.WEIGHT_DECAY_NORM": float | None,
}
"""The keys whose values may have several types; all others keep the type of their default."""

_LEAVES = (bool, int, float, str, list, tuple, type(None))


def value_at(tree: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return what a configuration holds at a key with dots, or a default where it has no such key.

    Example:
        >>> from sn2fpn.config import get_cfg
        >>> from sn2fpn.config.values import value_at
        >>> value_at(get_cfg(), "MODEL.FPN.OUT_CHANNELS"), value_at(get_cfg(), "MODEL.FPM.OUT_CHANNELS")
        (256, None)
    """
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def decoded(value: Any) -> Any:
    """Return what a text writes as a Python literal, such as "(1, 2)" or "None", and any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a text that is no literal, such as a path
        return value
    except (TypeError, RecursionError, MemoryError):  # a set of lists; a text of thousands of brackets or signs
        return value


def list_of(text: str) -> str:
    """Return the list that a text was probably meant to be, in the form of YAML and Python.

    Example:
        >>> list_of("[a, b"), list_of("a"), list_of("1 2")
        ('["a", "b"]', '["a"]', '[1, 2]')
    """
    text = text.strip()
    if text.startswith(("[", "(")):
        text = text[1:]
        if sum(map(text.count, ")]")) > sum(map(text.count, "([")):  # else the last bracket is that of a slice
            text = text[:-1]
    items = [item.strip("'\"") for item in re.split(r"[\s,]+", text)]
    return f"[{', '.join(item if _is_number(item) else json.dumps(item) for item in filter(None, items))}]"


def checked(value: Any, old: Any, full_key: str, source: str) -> Any:
    """Return `value`, converted to the type of `old` where nothing is lost.

    Args:
        value: the new value of a key.
        old: its present value.
        full_key: the key, for messages and for `EITHER_TYPE`.
        source: the file of the value, or "" if it is from none.

    Raises:
        UserError: the value has another type.
    """
    where = f"{source}: {full_key}".removeprefix(": ")
    right = ""
    value = _as_float(value) if type(old) is float or full_key in EITHER_TYPE else value
    value = named_entries(value, where) if full_key == OWN_SETS else value
    if (bits := _longest(value)) > 64:  # no tensor and no seed can hold such a number
        raise UserError(f"{where} expects numbers that fit into 64 bits, found one of {bits} bits")
    if full_key in EITHER_TYPE:
        if fits(value, EITHER_TYPE[full_key]):
            return value
        expected = type_words(EITHER_TYPE[full_key])
    else:
        if isinstance(value, (list, tuple)) and isinstance(old, (list, tuple)):
            converted = _sequence_like(value, old)
        elif old is None:
            converted = checked_leaf(value, where)
        else:
            converted = value if type(value) is type(old) else ...
        if converted is not ... and _kinds(converted) <= (_kinds(old) or _kinds(converted)):
            return converted
        expected = f"{type_words(type(old))} (such as {old!r})"
        if isinstance(old, (list, tuple)) and isinstance(value, str):  # a text that is no literal
            form = list_of(value)
            right = f"; write {f'{full_key} {shlex.quote(form)}' if source == COMMAND_LINE else form}"
    raise UserError(f"{where} expects {expected}, found {shortened(repr(value))}{shortened(right)}")


def checked_leaf(value: Any, where: str) -> Any:
    """Return a value that a configuration can hold.

    Raises:
        UserError: it is of a type that a configuration file has no form for.
    """
    if type(value) not in _LEAVES:
        expected = "a group of keys, a list, text, a number, true, false or null"
        raise UserError(f"{where} expects {expected}, found {shortened(repr(value))}, a {type(value).__name__}")
    return value


def _is_number(text: str) -> bool:
    return type(decoded(text)) in (int, float)


def _sequence_like(value: Any, old: Any) -> Any:
    """Return a list or tuple as the type of `old`, and those inside of it as the type of those inside of `old`."""
    inner = next((item for item in old if isinstance(item, (list, tuple))), None)
    if inner is None:
        return type(old)(value)
    return type(old)(_sequence_like(v, inner) if isinstance(v, (list, tuple)) else v for v in value)


def _as_float(value: Any) -> Any:
    """Return an integer as a float where there is such a float, and any other value as it is."""
    return float(value) if type(value) is int and abs(value) <= sys.float_info.max else value


def _longest(value: Any) -> int:
    """Return the bits of the longest integer that a value is or contains, 0 if there is none."""
    if isinstance(value, (list, tuple)):
        return max(map(_longest, value), default=0)
    return value.bit_length() if type(value) is int else 0


def _kinds(value: Any) -> set[type]:
    """Return the types of the items of a list, also in lists inside of it; all numbers count as one type."""
    if not isinstance(value, (list, tuple)):
        return set()
    kinds: set[type] = set()
    for item in value:
        kinds |= _kinds(item) if isinstance(item, (list, tuple)) else {float if type(item) is int else type(item)}
    return kinds
