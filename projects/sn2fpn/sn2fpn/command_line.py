"""The parser of all command lines: flags are written in full, and a wrong one is answered with the nearest."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Sequence
from typing import Any

from .errors import did_you_mean

__all__ = ["CommandLineParser"]

_NUMBER = re.compile(r"-\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE)


class CommandLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes no abbreviated flags and suggests the nearest flag for an unknown one.

    The same holds for the values of arguments with `choices`. Flags come before the configuration keys to change, which
    an argument with `nargs=argparse.REMAINDER` collects.

    Args:
        **options: those of `argparse.ArgumentParser`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments; all other methods that parse come here. An unknown flag ends the program with code 2."""
        words = list(sys.argv[1:] if args is None else args)
        if not self._subparsers:  # a missing argument is reported after a mistyped one
            for word in itertools.takewhile(lambda w: w != "--", words):
                if _is_flag(word) and word.partition("=")[0] not in self._option_string_actions:
                    self._refuse(word)
        found, rest = super().parse_known_args(words, namespace)
        for word in filter(_is_flag, rest):
            self._refuse(word)
        for action in self._actions:
            keys = getattr(found, action.dest, None) if action.nargs == argparse.REMAINDER else None
            for word in filter(_is_flag, keys or ()):
                self.error(f"{word}: flags come before the configuration keys, found it after {keys[0]}")
        return found, rest

    def _refuse(self, word: str) -> None:
        self.error(f"unknown flag {word}{did_you_mean(word.partition('=')[0], self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of the choices of its argument, and suggest the nearest one."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown value {value!r}{did_you_mean(value, action.choices)}")


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word)
