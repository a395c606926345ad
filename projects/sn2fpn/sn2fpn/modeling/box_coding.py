"""Boxes encoded as offsets (dx, dy, dw, dh) from reference boxes (R-CNN, 2014, appendix C)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..ranges import check_each, check_number
from .transfer import tensor_like

__all__ = ["SCALE_CLAMP", "BoxCoder"]

SCALE_CLAMP = math.log(1000.0 / 16)
"""The largest dw and dh that are decoded, so that an anchor of 16 pixels does not grow beyond 1000 pixels."""


class BoxCoder:
    """Converts boxes to offsets from reference boxes, and back.

        dx = wx * (centre_x(target) - centre_x(reference)) / width(reference)
        dw = ww * log(width(target) / width(reference))        and likewise dy, dh

    Args:
        weights: the factors (wx, wy, ww, wh), which bring the offsets to a variance of about 1.
        scale_clamp: upper limit of dw / ww and dh / wh in `decode`.

    Raises:
        ArgumentError: there are not four weights, or a weight or the limit is not positive.
    """

    def __init__(self, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), scale_clamp: float = SCALE_CLAMP) -> None:
        self.weights = tuple(check_each("weights", weights, check_number, length=4, above=0))
        self.scale_clamp = check_number("scale_clamp", scale_clamp, above=0)

    def encode(self, reference: Tensor, target: Tensor) -> Tensor:
        """Return the offsets (..., 4) that turn `reference` boxes (..., 4) into `target` boxes (..., 4)."""
        xy, wh = _centre_and_size(reference)
        target_xy, target_wh = _centre_and_size(target)
        w = tensor_like(self.weights, reference)
        return torch.cat([w[:2] * (target_xy - xy) / wh, w[2:] * torch.log(target_wh / wh)], dim=-1)

    def decode(self, deltas: Tensor, reference: Tensor) -> Tensor:
        """Return the boxes that offsets lead to, in float32 whatever the precision of the offsets is.

        Args:
            deltas: the offsets (..., 4).
            reference: the reference boxes (..., 4), which are broadcast against `deltas`.

        Returns:
            The boxes `(x1, y1, x2, y2)` (..., 4), which are not clipped to the image.
        """
        deltas = deltas.float()
        w = tensor_like(self.weights, deltas)
        xy, wh = _centre_and_size(reference.float())
        xy = deltas[..., :2] / w[:2] * wh + xy
        half = 0.5 * (torch.exp((deltas[..., 2:] / w[2:]).clamp(max=self.scale_clamp)) * wh)
        return torch.cat([xy - half, xy + half], dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size
