"""Numbers and names as the report writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["ABSENT", "joined", "number", "plural", "signed"]

ABSENT = "–"


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with thousands separators and a true minus sign, or a dash where there is no value."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")  # avoids "-0.0"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 1) -> str:
    """Return the same as `number`, with a plus sign before numbers above zero."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 and any(d in "123456789" for d in text) else text


def plural(count: int, thing: str) -> str:
    """Return for example "1 seed" or "3 seeds"."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def joined(values: Iterable[object]) -> str:
    """Return the distinct values in their order, separated by commas, or a dash if there is none."""
    return ", ".join(dict.fromkeys(str(v) for v in values if v not in (None, ""))) or ABSENT
