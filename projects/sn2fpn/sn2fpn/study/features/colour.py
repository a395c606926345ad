"""Feature maps as colours: three principal components, turned so that maps side by side can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

__all__ = ["align", "principal_scores", "to_rgb"]

_FLAT = 1e-5  # a component with less than this part of the first one's deviation is rounding


def principal_scores(features: Tensor) -> np.ndarray:
    """The first three principal components over a map's pixels, each of unit variance.

    The sign of a component is the one that grows with the map's energy, so that a map always gives the same scores.

    Args:
        features: (C, H, W).

    Returns:
        (H, W, 3) float64; components that do not exist are 0.
    """
    pixels = features.cpu().double().flatten(1).T.numpy()  # (H * W, C)
    energy = np.linalg.norm(pixels, axis=1)
    centred = pixels - pixels.mean(axis=0)
    scores = _leading(centred)
    scores *= np.where((energy - energy.mean()) @ scores < 0, -1.0, 1.0)
    return scores.reshape(*features.shape[1:], 3)


def _leading(x: np.ndarray) -> np.ndarray:
    """Three left singular vectors of (N, C), times sqrt(N); from the smaller of the two Gram matrices."""
    n, c = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if n <= c else x.T @ x)
    values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
    out = np.zeros((n, 3))
    for k in np.flatnonzero(values > _FLAT**2 * max(values[0], 1e-30)):
        column = vectors[:, k] if n <= c else x @ vectors[:, k]
        out[:, k] = column / np.linalg.norm(column) * n**0.5
    return out


def align(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Turn maps' scores, so that each agrees with the first as well as a rotation can make it.

    Separately trained maps have no common channels, hence no common basis; but their pixels correspond. Scores are
    free up to rotation and reflection anyway, and the one nearest to the first map's scores, pixel by pixel, is
    taken (orthogonal Procrustes; Schönemann, 1966). What is alike then has the same colour.

    Args:
        scores: (H, W, 3) each; maps of another size than the first stay as they are.
    """
    first = scores[0]
    turned = [first]
    for other in scores[1:]:
        if other.shape == first.shape:
            u, _, vt = np.linalg.svd(other.reshape(-1, 3).T @ first.reshape(-1, 3))
            other = other @ (u @ vt)
        turned.append(other)
    return turned


def to_rgb(scores: np.ndarray) -> np.ndarray:
    """(H, W, 3) scores as colours from 0 to 1; each component from its 2nd to its 98th percentile, gray if constant."""
    low, high = np.percentile(scores, (2, 98), axis=(0, 1))
    span = high - low
    scaled = (scores - low) / np.where(span > 0, span, 1.0)
    return np.where(span > 0, scaled.clip(0, 1), 0.5)
