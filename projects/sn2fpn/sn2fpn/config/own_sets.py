"""The value of `DATASETS.CUSTOM`: a list of entries, a mapping from names to entries, or the YAML of one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ..errors import UserError, shortened
from .yaml_limits import LimitedLoader

__all__ = ["OWN_SETS", "QUOTES", "check_quotes", "named_entries"]

OWN_SETS = "DATASETS.CUSTOM"
QUOTES = "in a shell, the whole value stands in single quotes"

_EXAMPLE = f"{OWN_SETS} '{{my_train: {{IMAGES: data/images, ANNOTATIONS: data/train.json}}}}'"


def named_entries(value: Any, where: str) -> Any:
    """Return a mapping from names to entries, or YAML, as a list of entries that have their NAME.

    A list and any other value are returned as they are.

    Args:
        value: the value of `DATASETS.CUSTOM`.
        where: its key, and the file or "command line", for messages.

    Raises:
        UserError: a text is not YAML, or a mapping holds something else than entries without NAME.
    """
    if isinstance(value, str):
        value = _parsed(value, where)
    if not isinstance(value, Mapping):
        return value
    for name, entry in value.items():
        if not isinstance(entry, Mapping) or "NAME" in entry:
            expected = "a mapping from names to entries such as {IMAGES: …, ANNOTATIONS: …}"
            raise UserError(f"{where}: expected {expected}, found {name}: {shortened(repr(entry))}")
    return [{"NAME": str(name), **entry} for name, entry in value.items()]


def check_quotes(changes: Sequence[Any]) -> None:
    """Check the value of `DATASETS.CUSTOM` in a list `["KEY", value, …]`, which a shell may have torn apart.

    Raises:
        UserError: the value is not YAML.
    """
    for key, value in itertools.pairwise(changes):
        if key == OWN_SETS and isinstance(value, str):
            _parsed(value, f"command line: {OWN_SETS}")


def _parsed(text: str, where: str) -> Any:
    found = f"found {shortened(text)!r}"
    try:
        value = yaml.load(text, LimitedLoader)
    except yaml.YAMLError as e:
        problem, mark = getattr(e, "problem", None) or str(e), getattr(e, "problem_mark", None)
        place = f" at character {mark.index + 1}" if mark else ""
        raise UserError(
            f"{where}: not readable as YAML: {problem}{place}, {found}; {QUOTES}, as in {_EXAMPLE}"
        ) from None
    if not isinstance(value, (list, dict)):
        raise UserError(
            f"{where} expects a list or mapping of data sets, found {shortened(text)}; {QUOTES}, as in {_EXAMPLE}"
        )
    joined = next((key for key in _keys_without_value(value) if ":" in key), None)
    if joined is not None:
        raise UserError(f"{where}: expected a space after the colon in {joined!r}, {found}")
    return value


def _keys_without_value(value: Any) -> Iterator[str]:
    """Yield the keys that have no value, also in lists and mappings inside of a value."""
    if isinstance(value, list):
        for item in value:
            yield from _keys_without_value(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if item is None:
                yield str(key)
            yield from _keys_without_value(item)
