"""Which images of a data set are shown or measured: always the same ones, spread over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["evenly_spread", "images_with_objects"]


def evenly_spread(length: int, count: int) -> list[int]:
    """Return at most `count` of the positions 0 … length - 1, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def images_with_objects(records: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return at most `count` evenly spread data set dicts with objects; if none has objects, of all data set dicts."""
    candidates = [record for record in records if record["annotations"]] or records
    return [candidates[i] for i in evenly_spread(len(candidates), count)]
