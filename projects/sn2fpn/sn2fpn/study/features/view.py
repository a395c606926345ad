"""What is drawn of one picture in one model, as small arrays: models need not be in memory together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .colour import principal_scores
from .look import LevelMaps, Measures
from .measures import cosine_map, energy, share_map

__all__ = ["LevelView", "View", "make_view"]


@dataclass(frozen=True)
class LevelView:
    """Arrays of (H, W) pixels, of (H, W, 3) for scores, each pixel `stride` picture pixels wide."""

    name: str
    stride: int
    size: tuple[int, int]  # of the picture, (height, width)
    energy_before: np.ndarray
    energy_after: np.ndarray
    scores_before: np.ndarray
    scores_after: np.ndarray
    share: np.ndarray | None
    cosine: np.ndarray | None
    boxes: np.ndarray  # (K, 4), of this level's size range
    measures: Measures


@dataclass(frozen=True)
class View:
    """A picture as a model sees it, (H, W, 3) uint8 RGB, and its levels, fine to coarse."""

    picture: np.ndarray
    levels: list[LevelView]


def make_view(x: Mapping[str, Any], levels: Sequence[tuple[LevelMaps, Measures]], input_format: str) -> View:
    """A view of the model input `x`, whose channels are in `input_format`, and of its maps."""
    picture = x["image"].permute(1, 2, 0).numpy()
    picture = np.ascontiguousarray(picture if input_format == "RGB" else picture[:, :, ::-1])
    return View(picture, [_level(maps, measures, picture.shape[:2]) for maps, measures in levels])


def _level(maps: LevelMaps, measures: Measures, image_size: tuple[int, int]) -> LevelView:
    rows, columns = (-(-side // maps.stride) for side in image_size)  # the cells that touch the picture

    def cut(values: Tensor) -> Tensor:
        return values[..., :rows, :columns]

    return LevelView(
        maps.name,
        maps.stride,
        image_size,
        energy(cut(maps.before)).numpy(),
        energy(cut(maps.after)).numpy(),
        principal_scores(cut(maps.before)),
        principal_scores(cut(maps.after)),
        None if maps.coarse is None else share_map(cut(maps.own), cut(maps.coarse)).numpy(),
        None if maps.coarse is None else cosine_map(cut(maps.own), cut(maps.coarse)).numpy(),
        maps.boxes.cpu().numpy(),
        measures,
    )
