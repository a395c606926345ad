"""A model on many pictures: mean measures, and views of some of the pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ...data import DatasetMapper
from ...data.augmentation import ResizeShortestEdge
from ...modeling import GeneralizedRCNN
from .look import Measures, look, measure
from .view import View, make_view

__all__ = ["build_mapper", "examine", "mean_measures", "spread"]


def build_mapper(model: GeneralizedRCNN, resize: ResizeShortestEdge | None) -> DatasetMapper:
    """Makes a model's inputs as its evaluation does, with the objects' boxes."""
    return DatasetMapper([] if resize is None else [resize], model.input_format, with_targets=True)


def examine(
    model: GeneralizedRCNN, mapper: DatasetMapper, records: Sequence[dict[str, Any]], drawn: Collection[int]
) -> tuple[dict[str, Measures], list[View]]:
    """Measure a model's pyramid on pictures.

    Args:
        model: it keeps its mode.
        mapper: makes its inputs, with targets.
        records: data set dicts.
        drawn: positions in `records` of which views are wanted.

    Returns:
        The means per level by name, fine to coarse; the views, in the records' order.
    """
    per_picture: list[dict[str, Measures]] = []
    views = []
    for i, record in enumerate(records):
        x = mapper(record, np.random.default_rng(0))
        measured = [(maps, measure(maps)) for maps in look(model, x)]
        per_picture.append({maps.name: measures for maps, measures in measured})
        if i in drawn:
            views.append(make_view(x, measured, model.input_format))
    return mean_measures(per_picture), views


def mean_measures(per_picture: Sequence[dict[str, Measures]]) -> dict[str, Measures]:
    """Per level, the mean of each measure over the pictures where it is defined (nowhere: None); boxes are added."""
    levels = {}
    for level, first in per_picture[0].items():
        levels[level] = {key: _mean([p[level][key] for p in per_picture]) for key in first}
        levels[level]["boxes"] = sum(p[level]["boxes"] for p in per_picture)
    return levels


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return sum(defined) / len(defined) if defined else None


def spread(length: int, count: int) -> list[int]:
    """At most `count` of the positions 0 … length - 1, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()
