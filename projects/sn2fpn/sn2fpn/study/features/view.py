"""What is drawn of one image in one model, as small arrays, so that the models need not be in memory together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from .maps import LevelMaps, Measures
from .measures import cosine_map, energy, share_map

__all__ = ["LevelView", "View", "align", "make_view", "principal_scores", "to_rgb"]

_FLAT = 1e-5  # a component whose deviation is this much smaller than the first one's is a rounding error


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


def principal_scores(features: Tensor) -> np.ndarray:
    """Return the first three principal components over a map's pixels, each with unit variance.

    For a map (C, H, W) these are (H, W, 3) float64; components that do not exist are 0. The sign of a component is
    chosen so that it grows with the map's energy. A map therefore always gives the same scores.
    """
    pixels = features.cpu().double().flatten(1).T.numpy()  # (H * W, C)
    energy = np.linalg.norm(pixels, axis=1)
    centred = pixels - pixels.mean(axis=0)
    scores = _leading(centred)
    scores *= np.where((energy - energy.mean()) @ scores < 0, -1.0, 1.0)
    return scores.reshape(*features.shape[1:], 3)


def _leading(x: np.ndarray) -> np.ndarray:
    """Return sqrt(N) times the first three left singular vectors of (N, C), from the smaller Gram matrix."""
    n, c = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if n <= c else x.T @ x)
    values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
    out = np.zeros((n, 3))
    for k in np.flatnonzero(values > _FLAT**2 * max(values[0], 1e-30)):
        column = vectors[:, k] if n <= c else x @ vectors[:, k]
        out[:, k] = column / np.linalg.norm(column) * n**0.5
    return out


def align(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rotate the scores of maps so that each agrees with those of the first map as well as possible.

    Separately trained networks have no common channels, hence no common basis, but their pixels correspond. Scores are
    only defined up to a rotation or reflection anyway. The one that brings them nearest to the first map's scores,
    pixel by pixel, is taken (orthogonal Procrustes; Schönemann, 1966). Similar places then have similar colours.
    Scores (H, W, 3) of another size than the first are not rotated.
    """
    first = scores[0]

    def rotated(other: np.ndarray) -> np.ndarray:
        return other @ orthogonal_procrustes(other.reshape(-1, 3), first.reshape(-1, 3))[0]

    return [first, *(rotated(other) if other.shape == first.shape else other for other in scores[1:])]


def to_rgb(scores: np.ndarray) -> np.ndarray:
    """Return scores (H, W, 3) as colours in 0..1, from the 2nd to the 98th percentile of each component."""
    low, high = np.percentile(scores, (2, 98), axis=(0, 1))
    span = high - low
    scaled = (scores - low) / np.where(span > 0, span, 1.0)
    return np.where(span > 0, scaled.clip(0, 1), 0.5)
