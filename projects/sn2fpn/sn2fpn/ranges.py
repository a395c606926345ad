"""Checks that the numbers which a class or a function receives are in their ranges."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from .errors import ArgumentError

__all__ = ["check_count", "check_each", "check_limit", "check_number", "check_odd"]

T = TypeVar("T")


def check_number(
    argument: str,
    found: T,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> T:
    """Return `found` when it is a finite number within the bounds.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> check_number("nms_thresh", 0.7, at_least=0, at_most=1)
        0.7
        >>> check_number("nms_thresh", 7, at_least=0, at_most=1)
        Traceback (most recent call last):
            ...
        sn2fpn.errors.ArgumentError: nms_thresh: expected a number of at least 0 and of at most 1, found 7
    """
    limits = (
        ("of at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("of at most", at_most, operator.le),
        ("below", below, operator.lt),
    )
    limits = [limit for limit in limits if limit[1] is not None]
    if not (_is_finite(found) and all(holds(found, bound) for _, bound, holds in limits)):
        words = " and ".join(f"{word} {bound}" for word, bound, _ in limits)
        raise ArgumentError(argument, f"expected a number {words or 'that is finite'}, found {found!r}")
    return found


def _is_finite(found: object) -> bool:
    # `isfinite` overflows on whole numbers of 400 digits.
    return _is_whole(found) or (isinstance(found, Real) and not isinstance(found, bool) and math.isfinite(found))


def _is_whole(found: object) -> bool:
    return isinstance(found, Integral) and not isinstance(found, bool)


def check_count(argument: str, found: T, at_least: int = 1, at_most: int | None = None) -> T:
    """Return `found` when it is a whole number of at least `at_least` and, if that is given, of at most `at_most`.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> check_count("num_classes", 80)
        80
    """
    if not _is_whole(found) or found < at_least:
        raise ArgumentError(argument, f"expected a whole number of at least {at_least}, found {found!r}")
    if at_most is not None and found > at_most:
        raise ArgumentError(argument, f"expected a whole number of at most {at_most}, found {found!r}")
    return found


def check_limit(argument: str, found: T) -> T:
    """Return `found` when it is a whole number of at least 1, or -1, which stands for no limit.

    Raises:
        ArgumentError: it is not.
    """
    if not _is_whole(found) or (found < 1 and found != -1):
        raise ArgumentError(argument, f"expected a whole number of at least 1, or -1 for no limit, found {found!r}")
    return found


def check_odd(argument: str, found: T) -> T:
    """Return `found` when it is an odd number of at least 1, such as the side of a kernel.

    Raises:
        ArgumentError: it is not.
    """
    if not _is_whole(found) or found < 1 or found % 2 == 0:
        raise ArgumentError(argument, f"expected an odd number of at least 1, found {found!r}")
    return found


def check_each(
    argument: str, found: Iterable[T], check: Callable[..., Any], *, length: int | None = None, **bounds: float
) -> list[T]:
    """Return a list of the items of `found` when each of them passes a check. Errors name the item, e.g. "sizes[0]".

    Args:
        argument: name of the argument.
        found: the items.
        check: another check of this module.
        length: the number of items that is expected; None allows any.
        **bounds: are passed on to the check.

    Raises:
        ArgumentError: an item does not pass, there are more or fewer items, or `found` is no list.

    Example:
        >>> check_each("sizes", (32, 64), check_number, above=0)
        [32, 64]
    """
    items = None if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable) else list(found)
    if items is None or (length is not None and len(items) != length):
        wanted = "a list" if length is None else f"{length} numbers"
        raise ArgumentError(argument, f"expected {wanted}, found {found!r}")
    for i, item in enumerate(items):
        check(f"{argument}[{i}]", item, **bounds)
    return items
