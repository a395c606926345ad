"""Which images of a data set are shown or measured: always the same ones, spread over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data import evenly_spread

__all__ = ["images_with_objects"]


def images_with_objects(records: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return at most `count` evenly spread data set dicts with objects; if none has objects, of all data set dicts."""
    return evenly_spread([record for record in records if record["annotations"]] or records, count)
