"""What is drawn of one image in one model, as small arrays, so that the models need not be in memory together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .colour import principal_scores
from .maps import LevelMaps, Measures
from .measures import cosine_map, energy, share_map

__all__ = ["LevelView", "View", "make_view"]


@dataclass(frozen=True)
class LevelView:
    """One level of a view: arrays (H, W), or (H, W, 3) for scores, whose pixels are `stride` image pixels wide."""

    name: str
    stride: int
    size: tuple[int, int]  # (height, width) of the image
    energy_before: np.ndarray
    energy_after: np.ndarray
    scores_before: np.ndarray  # principal components
    scores_after: np.ndarray
    share: np.ndarray | None  # coarse share at each pixel, None at the coarsest level
    cosine: np.ndarray | None  # agreement at each pixel, None at the coarsest level
    boxes: np.ndarray  # (K, 4), of the objects whose size belongs to the level
    measures: Measures


@dataclass(frozen=True)
class View:
    """An image as a model sees it, (H, W, 3) uint8 RGB, and its levels from fine to coarse."""

    image: np.ndarray
    levels: list[LevelView]


def make_view(x: Mapping[str, Any], levels: Sequence[tuple[LevelMaps, Measures]], input_format: str) -> View:
    """Return the view of a model input, whose channels are in `input_format`, and of its maps."""
    image = x["image"].permute(1, 2, 0).numpy()
    image = np.ascontiguousarray(image if input_format == "RGB" else image[:, :, ::-1])
    return View(image, [_level(maps, measures, image.shape[:2]) for maps, measures in levels])


def _level(maps: LevelMaps, measures: Measures, image_size: tuple[int, int]) -> LevelView:
    rows, columns = (-(-side // maps.stride) for side in image_size)  # pixels of the map that touch the image

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
