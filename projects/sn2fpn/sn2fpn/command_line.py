"""The parser of all command lines: flags are written in full, and a wrong one is answered with the nearest."""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .errors import did_you_mean
from .shipped import checkout

__all__ = ["COMMAND", "PROGRAMS", "CommandLineParser", "as_typed", "train_command"]

COMMAND = "sn2fpn"
"""The console command of the package. While it runs, `sys.argv[0]` is "sn2fpn train" or the like."""

PROGRAMS = {
    "eval": "python train_net.py --eval-only",
    "train": "python train_net.py",
    "predict": "python -m sn2fpn.predict",
    "export": "python -m sn2fpn.export",
    "features": "python -m sn2fpn.study features",
    "study": "python -m sn2fpn.study",
    "check": "python -m sn2fpn.data.check",
    "analyze": "python -m sn2fpn.evaluation.analysis",
    "convert": "python -m sn2fpn.data.convert",
}
"""The programs behind the sub-commands of `sn2fpn`; one whose line begins with that of another comes before it."""

_NUMBER = re.compile(r"-\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE)
_KEY = re.compile(r"[A-Z]\w*(\.\w+)+(=.*)?", re.DOTALL)
_CONFIG = "--config-file"
_CONFIG_ENDINGS = (".yaml", ".yml", ".py")


def as_typed(text: str) -> str:
    """Return a text whose programs are named as this process was started, as sub-commands of `sn2fpn` or unchanged.

    Example:
        >>> as_typed("python -m sn2fpn.data.check lists all")  # in a process that `sn2fpn train` has started
        'sn2fpn check lists all'
    """
    if _started_as():
        for name, program in PROGRAMS.items():
            text = text.replace(program, f"{COMMAND} {name}")
    return text


def _started_as() -> str | None:
    """Return "sn2fpn train" or the like, or None in a process that was started otherwise."""
    return next((name for name in sys.argv[:1] if name.startswith(f"{COMMAND} ")), None)


def train_command() -> list[str]:
    """Return the command that trains, for records that are read outside of this process."""
    return ["python", "train_net.py"] if checkout() else [COMMAND, "train"]


class CommandLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes no abbreviated flags and suggests the nearest flag for an unknown one.

    The same holds for the values of arguments with `choices`. Flags come before the configuration keys to change, which
    an argument with `nargs=argparse.REMAINDER` collects. In a parser with `--config-file`, this flag may be left out
    before a configuration. The texts name programs as this process was started, see `as_typed`.

    Args:
        **options: those of `argparse.ArgumentParser`.
    """

    def __init__(self, **options: Any) -> None:
        options = {"allow_abbrev": False, "prog": _started_as(), **options}
        texts = {key: as_typed(options[key]) for key in ("prog", "epilog", "description") if options.get(key)}
        super().__init__(**(options | texts))
        self._intermixed = False

    def add_config_file(self, words: str, **options: Any) -> None:
        """Add the flag `--config-file`, before whose first value it may be left out.

        Args:
            words: what the configuration is, for the help.
            **options: further options of `add_argument`.
        """
        words += "; a file or a name from `sn2fpn configs list`, before which the flag may be left out"
        self.add_argument(_CONFIG, metavar="FILE", help=words, **options)

    def add_import(self) -> None:
        """Add the flag `--import`; `sn2fpn.imports.import_files` imports its files before anything is read."""
        self.add_argument(
            "--import",
            action="append",
            default=[],
            dest="imports",
            metavar="FILE",
            help="a Python file, or the folder of a Python package, that is imported before the configuration is read, "
            "for example with a pyramid of your own; may be given several times",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments. An unknown flag and an argument too many end the program with code 2."""
        found, rest = self._parse(super().parse_known_args, args, namespace)
        if rest and not self._intermixed:
            no_keys = ". This command takes no configuration keys; --help tells what it takes"
            self.error(f"unexpected argument {rest[0]!r}{no_keys * bool(_KEY.fullmatch(rest[0]))}")
        return found, rest

    def parse_known_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments whose positional ones may stand between flags."""
        self._intermixed = True  # argparse calls `parse_known_args` without the positional ones first
        return self._parse(super().parse_known_intermixed_args, args, namespace)

    def _parse(
        self, parse: Callable[[Sequence[str], Any], tuple[Any, list[str]]], args: Sequence[str] | None, namespace: Any
    ) -> tuple[Any, list[str]]:
        words = list(sys.argv[1:] if args is None else args)
        if not self._subparsers:  # a missing argument is reported after a mistyped one
            for word in itertools.takewhile(lambda w: w != "--", words):
                if _is_flag(word) and word.partition("=")[0] not in self._option_string_actions:
                    self._refuse(word)
        found, rest = parse(self._with_config_flag(words), namespace)
        for word in filter(_is_flag, rest):
            self._refuse(word)
        for action in self._actions:
            keys = getattr(found, action.dest, None) if action.nargs == argparse.REMAINDER else None
            if keys and keys[0] == "--":  # the usual mark of the end of all flags
                del keys[0]
            for word in filter(_is_flag, keys or ()):
                self.error(f"{word}: flags come before the configuration keys, found it after {keys[0]}")
        return found, rest

    def _with_config_flag(self, words: list[str]) -> list[str]:
        """Return the words with `--config-file` before a configuration that is the first positional argument."""
        if _CONFIG not in self._option_string_actions or any(w.partition("=")[0] == _CONFIG for w in words):
            return words
        values: float = 0  # of the last flag
        for i, word in enumerate(words):
            if word == "--":
                break
            if _is_flag(word):
                flag, equals, _ = word.partition("=")
                values = 0 if equals else _most_values(self._option_string_actions[flag].nargs)
            elif values:
                values -= 1
            else:
                return [*words[:i], _CONFIG, *words[i:]] if word.endswith(_CONFIG_ENDINGS) else words
        return words

    def _refuse(self, word: str) -> None:
        self.error(f"unknown flag {word}{did_you_mean(word.partition('=')[0], self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of the choices of its argument, and suggest the nearest one."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown value {value!r}{did_you_mean(value, action.choices)}")


def _most_values(nargs: int | str | None) -> float:
    """Return how many values a flag takes at most."""
    return {None: 1, "?": 1, "*": math.inf, "+": math.inf}.get(nargs, nargs)  # type: ignore[arg-type, return-value]


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word)
