"""The KEY VALUE pairs of a command line, and the messages for pairs that are written otherwise or torn by a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from ..errors import UserError, shortened
from .own_sets import check_quotes
from .values import COMMAND_LINE, decoded, list_of, value_at

__all__ = ["pairs_of"]

_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)+|[A-Z][A-Z0-9_]+")
_OPENING, _CLOSING = "([{", ")]}"


def pairs_of(words: Sequence[Any], tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the pairs of a list `["KEY", value, …]`, whose values may be texts, as on a command line.

    Args:
        words: the list.
        tree: the configuration that the pairs change.

    Raises:
        UserError: a key has no value or several, or is written as KEY=VALUE. The message shows the right form.
    """
    check_quotes(words)
    for i in range(0, len(words), 2):
        _check_form(str(words[i]), words[i + 1 :])
        _check_one_value(str(words[i]), words[i + 1 :], tree)
    if len(words) % 2:
        given = shortened(" ".join(map(str, words)))
        raise UserError(f"configuration keys are changed by KEY VALUE pairs, but {words[-1]!r} has no value: {given}")
    return [(str(key), value) for key, value in zip(words[::2], words[1::2])]


def _check_form(key: str, rest: Sequence[Any]) -> None:
    name, equals, value = key.partition("=")
    if equals:
        value = value or str(next(iter(rest), "VALUE"))
        raise UserError(
            f"{COMMAND_LINE}: a YAML configuration is changed by KEY VALUE pairs; write "
            f"{shortened(f'{name} {shlex.quote(value)}')} instead of {shortened(key)}"
        )


def _check_one_value(key: str, rest: Sequence[Any], tree: Mapping[str, Any]) -> None:
    """Check that one word follows a key, and not several that are a list or a text without quotes."""
    old = value_at(tree, key)
    words = list(takewhile(lambda w: isinstance(w, str) and value_at(tree, w) is None and not _KEY.fullmatch(w), rest))
    if len(words) < 2 or not isinstance(old, (list, tuple, str)):
        return
    text = " ".join(words)
    if not isinstance(old, str):
        if words[0].startswith(("[", "(")) and _is_closed(words[0]):  # it is a list, so the next word is a key
            return
        text = text if isinstance(decoded(text), (list, tuple)) else list_of(text)
    raise UserError(
        f"{COMMAND_LINE}: {key} takes one value, found the words {shortened(' '.join(words))}; with quotes they are "
        f"one: {key} {shortened(shlex.quote(text))}"
    )


def _is_closed(text: str) -> bool:
    return sum(map(text.count, _OPENING)) <= sum(map(text.count, _CLOSING))
