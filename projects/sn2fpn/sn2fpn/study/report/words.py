"""Numbers and names as the report writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["ABSENT", "joined", "number", "plural", "plus_minus", "signed"]

ABSENT = "–"


def number(value: float | None, digits: int = 1) -> str:
    """With thousands separated and a true minus sign; a dash where there is no value."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")  # no "-0.0"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 1) -> str:
    """As `number`, with a plus where it is above zero."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 and any(d in "123456789" for d in text) else text


def plus_minus(mean: float, low: float, high: float, digits: int = 1) -> str:
    """ "62.7 ± 0.8": a mean and half of its interval; the mean alone where there is no interval."""
    return number(mean, digits) + ("" if not math.isfinite(high - low) else f" ± {number((high - low) / 2, digits)}")


def plural(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def joined(values: Iterable[object]) -> str:
    """Different values in their order, with commas; a dash for none."""
    return ", ".join(dict.fromkeys(str(v) for v in values if v not in (None, ""))) or ABSENT
