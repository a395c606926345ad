"""The numbers: localisation, coarse share and agreement of one level's map on one picture (docs/features.md).

All of them weigh a map's pixels by area: a_in(x) and a_out(x) are the parts of pixel x's cell, in picture pixels,
that lie inside and outside the objects of the level; padding counts in neither.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Regions", "agreement", "coarse_share", "cosine_map", "energy", "localisation", "regions", "share_map"]

# A contribution this much smaller than the other has no direction left in float32.
_NEGLIGIBLE = 1e-5


class Regions(NamedTuple):
    """Areas (H, W) in square picture pixels, float64, of a map's cells."""

    inside: Tensor
    outside: Tensor

    @property
    def whole(self) -> Tensor:
        return self.inside + self.outside


def regions(boxes: Tensor, image_size: tuple[int, int], map_size: tuple[int, int], stride: int) -> Regions:
    """How much of each cell of a map lies in the union of some boxes, and how much in the rest of the picture.

    Args:
        boxes: (K, 4) `(x1, y1, x2, y2)` in pixels; a pixel is inside with its centre.
        image_size: (height, width) of the picture without padding.
        map_size: (H, W); cell (i, j) covers the pixels from (i, j) * stride on.
    """
    height, width = image_size
    canvas = torch.zeros(2, map_size[0] * stride, map_size[1] * stride, dtype=torch.float64)
    canvas[1, :height, :width] = 1
    for x1, y1, x2, y2 in (boxes.cpu().double() - 0.5).ceil().clamp(min=0).to(torch.int64).tolist():
        canvas[0, y1 : min(y2, height), x1 : min(x2, width)] = 1
    inside, whole = F.avg_pool2d(canvas, stride) * stride**2
    return Regions(inside, whole - inside)


def energy(features: Tensor) -> Tensor:
    """E(x) = ||f(x)||_2 over channels: (C, H, W) -> (H, W) float64, on the CPU."""
    return features.cpu().double().norm(dim=0)


def localisation(features: Tensor, where: Regions) -> float | None:
    """Area under the ROC curve of a map's energy as a detector of pixels inside boxes.

    The probability that of two random picture pixels, one inside and one outside, the one inside has more energy;
    equal energies count one half. 1: all objects outshine everything else, 1/2: chance, 0: objects are dark.

    Args:
        features: (C, H, W).
        where: of the boxes; their areas are (H, W).

    Returns:
        The area; None without any inside or any outside.
    """
    total_in, total_out = float(where.inside.sum()), float(where.outside.sum())
    if not total_in or not total_out:
        return None
    _, rank = energy(features).flatten().unique(return_inverse=True)  # ascending
    inside, outside = (
        torch.zeros(int(rank.max()) + 1, dtype=torch.float64).index_add_(0, rank, area.flatten()) for area in where
    )
    dimmer = outside.cumsum(0) - outside
    return float((inside * (dimmer + outside / 2)).sum()) / (total_in * total_out)


def coarse_share(own: Tensor, coarse: Tensor, where: Regions) -> float | None:
    """||coarse|| / (||own|| + ||coarse||), norms over channels and picture: 0 nothing, 1 everything comes from above.

    Args:
        own, coarse: (C, H, W), the contributions (`respond`).

    Returns:
        The share; None if both vanish.
    """
    own_norm, coarse_norm = (float((energy(x).square() * where.whole).sum().sqrt()) for x in (own, coarse))
    total = own_norm + coarse_norm
    return coarse_norm / total if total else None


def agreement(own: Tensor, coarse: Tensor, weights: Tensor) -> float | None:
    """Mean over pixels of the cosine between the two contributions: 1 they say the same, -1 the opposite.

    Args:
        own, coarse: (C, H, W), the contributions (`respond`).
        weights: (H, W), e.g. the areas inside boxes.

    Returns:
        The mean over pixels where the cosine is defined (`cosine_map`); None where there is no such pixel.
    """
    cosine = cosine_map(own, coarse)
    weights = weights * cosine.isfinite()
    total = float(weights.sum())
    return float((cosine.nan_to_num() * weights).sum()) / total if total else None


def cosine_map(own: Tensor, coarse: Tensor) -> Tensor:
    """Cosine over channels at each pixel, (H, W); NaN where one of the two is (numerically) nothing."""
    a, b = own.cpu().double(), coarse.cpu().double()
    norms = a.norm(dim=0), b.norm(dim=0)
    limit = _NEGLIGIBLE * max(float(n.max()) for n in norms)
    defined = (norms[0] > limit) & (norms[1] > limit)
    return torch.where(defined, (a * b).sum(0) / (norms[0] * norms[1]), torch.nan).clamp(-1, 1)


def share_map(own: Tensor, coarse: Tensor) -> Tensor:
    """||coarse(x)|| / (||own(x)|| + ||coarse(x)||) at each pixel, (H, W); NaN where both vanish."""
    a, b = energy(own), energy(coarse)
    return b / (a + b)
