"""Localisation, coarse share and agreement of one level's map on one image (docs/features.md).

All of them weight the pixels of a map by area. A map's pixel x stands for a cell of image pixels; a_in(x) and a_out(x)
are the areas of the cell inside and outside the objects of the level. Padding counts in neither.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Regions", "agreement", "coarse_share", "cosine_map", "energy", "localisation", "regions", "share_map"]

# In float32, a contribution that is this much smaller than the other has no direction left.
_NEGLIGIBLE = 1e-5


class Regions(NamedTuple):
    """The areas inside and outside objects of each cell of a map, (H, W) float64 in square image pixels."""

    inside: Tensor
    outside: Tensor

    @property
    def whole(self) -> Tensor:
        return self.inside + self.outside


def regions(boxes: Tensor, image_size: tuple[int, int], map_size: tuple[int, int], stride: int) -> Regions:
    """Return how much of each cell of a map lies in the union of some boxes, and how much in the rest of the image.

    Args:
        boxes: (K, 4) boxes `(x1, y1, x2, y2)` in pixels. A pixel is inside if its centre is.
        image_size: (height, width) of the image without padding.
        map_size: (H, W) of the map. Cell (i, j) starts at the pixel (i, j) * stride.
        stride: Image pixels per cell.
    """
    height, width = image_size
    canvas = torch.zeros(2, map_size[0] * stride, map_size[1] * stride, dtype=torch.float64)
    canvas[1, :height, :width] = 1
    for x1, y1, x2, y2 in (boxes.cpu().double() - 0.5).ceil().clamp(min=0).to(torch.int64).tolist():
        canvas[0, y1 : min(y2, height), x1 : min(x2, width)] = 1
    inside, whole = F.avg_pool2d(canvas, stride) * stride**2
    return Regions(inside, whole - inside)


def energy(features: Tensor) -> Tensor:
    """Return E(x) = ||f(x)||_2 over the channels of (C, H, W), as (H, W) float64 on the CPU."""
    return features.cpu().double().norm(dim=0)


def localisation(features: Tensor, where: Regions) -> float | None:
    """Return the area under the ROC curve of a map's energy as a detector of pixels inside boxes.

    It is the probability that of two random image pixels, one inside and one outside the boxes, the one inside has more
    energy; equal energies count one half. It is 1 if all objects have more energy than everything else, 1/2 by chance,
    and 0 if they have less. For a map (C, H, W) it is None if nothing is inside or nothing is outside.
    """
    total_in, total_out = float(where.inside.sum()), float(where.outside.sum())
    if not total_in or not total_out:
        return None
    _, rank = energy(features).flatten().unique(return_inverse=True)  # ranks grow with energy
    inside, outside = (
        torch.zeros(int(rank.max()) + 1, dtype=torch.float64).index_add_(0, rank, area.flatten()) for area in where
    )
    dimmer = outside.cumsum(0) - outside
    return float((inside * (dimmer + outside / 2)).sum()) / (total_in * total_out)


def coarse_share(own: Tensor, coarse: Tensor, where: Regions) -> float | None:
    """Return ||coarse|| / (||own|| + ||coarse||), with norms over channels and image; None if both vanish.

    It is 0 if nothing and 1 if everything comes from coarser levels. `respond` gives the contributions of the own and
    finer levels and of the coarser ones, (C, H, W) each.
    """
    own_norm, coarse_norm = (float((energy(x).square() * where.whole).sum().sqrt()) for x in (own, coarse))
    total = own_norm + coarse_norm
    return coarse_norm / total if total else None


def agreement(own: Tensor, coarse: Tensor, weights: Tensor) -> float | None:
    """Return the mean over pixels of the cosine between two contributions (C, H, W), with weights (H, W).

    Pixels at which the cosine is not defined (`cosine_map`) do not count; the mean of no pixel is None.
    """
    cosine = cosine_map(own, coarse)
    weights = weights * cosine.isfinite()
    total = float(weights.sum())
    return float((cosine.nan_to_num() * weights).sum()) / total if total else None


def cosine_map(own: Tensor, coarse: Tensor) -> Tensor:
    """Return the cosine over channels at each pixel, (H, W); NaN where one of the two is numerically zero."""
    a, b = own.cpu().double(), coarse.cpu().double()
    norms = a.norm(dim=0), b.norm(dim=0)
    limit = _NEGLIGIBLE * max(float(n.max()) for n in norms)
    defined = (norms[0] > limit) & (norms[1] > limit)
    return torch.where(defined, (a * b).sum(0) / (norms[0] * norms[1]), torch.nan).clamp(-1, 1)


def share_map(own: Tensor, coarse: Tensor) -> Tensor:
    """Return ||coarse(x)|| / (||own(x)|| + ||coarse(x)||) at each pixel, (H, W); NaN where both vanish."""
    a, b = energy(own), energy(coarse)
    return b / (a + b)
