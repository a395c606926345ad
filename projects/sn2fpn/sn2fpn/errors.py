"""The exceptions for user mistakes, and the words that suggest the nearest valid choice."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

__all__ = [
    "ArgumentError",
    "UserError",
    "argument_names",
    "check_choice",
    "counted",
    "counted_of",
    "did_you_mean",
    "failing_line",
    "keys_of",
    "nearby_files",
    "shortened",
]

T = TypeVar("T")


class UserError(ValueError):
    """A mistake that the user can correct, such as a wrong key, file, flag or data set.

    The message names the file, key or flag, what was found, what was expected and the nearest valid
    choice. The entry point prints it without a traceback and exits with code 2.
    """


class ArgumentError(UserError):
    """A wrong value of one argument of a class or a function.

    The class that refuses the value names its own argument. A caller that took the value from somewhere else, for
    instance from a configuration key, replaces the name with `argument_names`.

    Args:
        argument: name of the argument, e.g. "in_features".
        problem: what was expected, what was found and the nearest valid choice.

    Example:
        >>> print(ArgumentError("alpha", "expected a positive number, found -1"))
        alpha: expected a positive number, found -1
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument
        self.problem = problem

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str]]:
        return type(self), (self.argument, self.problem)


@contextmanager
def argument_names(names: Mapping[str, str] | Callable[[str], str | None]) -> Iterator[None]:
    """Give the arguments that an `ArgumentError` names inside this context the names that the caller knows.

    Args:
        names: maps an argument's name to the name that replaces it, e.g. to a configuration key. Arguments that are
            not in the mapping, or for which the function returns None, keep their names. An item of an argument, such
            as "sizes[0]", keeps its index behind the new name, unless the mapping has a name for the item itself.

    Raises:
        ArgumentError: the error that was raised inside, with the new name.

    Example:
        >>> with argument_names({"alpha": "MODEL.SNI.ALPHA"}):
        ...     raise ArgumentError("alpha", "expected a positive number, found -1")
        Traceback (most recent call last):
            ...
        sn2fpn.errors.ArgumentError: MODEL.SNI.ALPHA: expected a positive number, found -1
    """
    try:
        yield
    except ArgumentError as e:
        rename = names if callable(names) else names.get
        whole, bracket, index = e.argument.partition("[")
        name = rename(e.argument) or (bracket and rename(whole) and f"{rename(whole)}{bracket}{index}")
        if not name:
            raise
        raise ArgumentError(name, e.problem) from e


def keys_of(group: str, **others: str) -> Callable[[str], str | None]:
    """Return the rule that names arguments after the keys of a configuration group, for `argument_names`.

    An argument's key is its own name in capital letters. Names that are keys or flags already stay as they are.

    Args:
        group: the configuration group, e.g. "MODEL.RPN".
        **others: the full keys of the arguments, or of items of arguments ("topk[0]"), that are called otherwise or
            stand in another group.

    Example:
        >>> key = keys_of("MODEL.RPN", labels="MODEL.RPN.IOU_LABELS")
        >>> key("conv_dims"), key("labels"), key("MODEL.DEVICE")
        ('MODEL.RPN.CONV_DIMS', 'MODEL.RPN.IOU_LABELS', None)
    """
    return lambda name: others.get(name) or (f"{group}.{name.upper()}" if name.isidentifier() else None)


def check_choice(argument: str, found: T, choices: Iterable[T]) -> T:
    """Return `found` when it is one of `choices`.

    Raises:
        ArgumentError: it is not; the message suggests the nearest choice.

    Example:
        >>> check_choice("order", "pass_sum", ("pass_sum", "pass_smoothed"))
        'pass_sum'
    """
    choices = list(choices)
    if found not in choices:
        raise ArgumentError(argument, f"unknown value {found!r}{did_you_mean(str(found), map(str, choices))}")
    return found


def shortened(text: str, length: int = 200) -> str:
    """Return a text for a message, without its middle if it is longer than `length` characters."""
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with the words for one thing or for several ones, which are by default the former with an s.

    Example:
        >>> counted(1, "image"), counted(3, "image"), counted(2, "class has", "classes have")
        ('1 image', '3 images', '2 classes have')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def counted_of(count: int, total: int, thing: str, verbs: str) -> str:
    """Return how many of several things are or have something.

    Args:
        count: the number of those that are or have it.
        total: the number of all.
        thing: the word for one of them or, where the plural has more than an s, for one and several: "box/boxes".
        verbs: the verb for one and for several: "has/have".

    Example:
        >>> counted_of(1, 6, "image", "is/are"), counted_of(2, 2, "class/classes", "has/have")
        ('1 of 6 images is', '2 of 2 classes have')
    """
    return f"{count:,} of {counted(total, *thing.split('/'))} {verbs.split('/')[count != 1]}"


def did_you_mean(found: str, choices: Iterable[str], limit: int = 8, prefix: str = "") -> str:
    """Return `"; did you mean 'x'?"` for a close match, otherwise a list of the first few valid choices, if any.

    Args:
        found: what was given.
        choices: what is valid.
        limit: the most choices that are listed.
        prefix: is put before each choice and takes no part in the comparison, e.g. the group of keys.
    """
    choices = sorted(map(str, choices), key=lambda c: (int(c) if c.isdecimal() else 0, c))
    lowered = {c.lower(): c for c in choices}
    word = str(found).lower()
    if "cuda" in lowered:  # "gpu" looks like "cpu" and means "cuda"
        word = word.replace("gpu", "cuda")
    close = difflib.get_close_matches(word, lowered, n=8, cutoff=0.6)
    if close:
        return f"; did you mean {prefix + lowered[max(close, key=lambda c: _nearness(c, word))]!r}?"
    if not choices:
        return ""
    more = f", … ({len(choices)} in all)" if len(choices) > limit else ""
    return "; choose from: " + ", ".join(prefix + c or "''" for c in choices[:limit]) + more


def _nearness(choice: str, word: str) -> tuple[float, int]:
    """Return how alike two words are, and how many first letters they share: AP51 is as much like AP75 as AP50."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(choice, word))
    return difflib.SequenceMatcher(None, choice, word).ratio(), sum(1 for _ in shared)


def nearby_files(path: Path, pattern: str, others: Iterable[str] = ()) -> str:
    """Return what `did_you_mean` says of a missing file and those around it, or "" if none matches a pattern.

    These are the files in the nearest folder that exists and up to two levels below it, without hidden ones.

    Args:
        path: the file that is missing.
        pattern: which files are suggested, such as "*.json".
        others: further names to suggest.
    """
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    levels = ("", "*/", "*/*/")
    if folder.resolve() == Path(folder.anchor or "/"):  # all files of the machine are no choice
        levels = ()
    try:
        below = [file for level in levels for file in folder.glob(level + pattern)]
    except OSError:  # a folder that cannot be read, or that has just been removed
        below = []
    nearby = [str(file) for file in below if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    return did_you_mean(str(path), [*nearby, *others])


def failing_line(error: BaseException, file: str | os.PathLike[str]) -> int | None:
    """Return the line of a Python file in which an error arose, or None when it did not arise in this file."""
    if isinstance(error, SyntaxError):
        return error.lineno if error.filename == str(file) else None
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return lines[-1] if lines else None
