"""Soft nearest-neighbour interpolation (SNI), alone and fused into a top-down addition."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["soft_nearest_add"]


def soft_nearest_add(lateral, x, alpha="area", mode="nearest"):
    size = lateral.shape[-2:]
    if alpha == "area":
        alpha = x.shape[-1] * x.shape[-2] / (size[0] * size[1])
    return torch.add(lateral, F.interpolate(x, size=size, mode=mode), alpha=alpha)
