"""Upsampling by name, to the size of the receiving map, for pyramids that offer the choice."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError, did_you_mean
from .sni import soft_nearest, soft_nearest_add

__all__ = ["UPSAMPLINGS", "check_upsampling", "upsample", "upsample_add"]

UPSAMPLINGS = ("nearest", "sni", "bilinear", "bilinear_corners")
"""sni: nearest, scaled by the area ratio; bilinear: half-pixel centres; bilinear_corners: corners aligned."""


def check_upsampling(name: str, key: str, choices: Sequence[str] = UPSAMPLINGS) -> str:
    """`name` when it is one of `choices`; `key` names it in the message.

    Raises:
        UserError: it is not.
    """
    if name not in choices:
        raise UserError(f"{key}: unknown upsampling {name!r}{did_you_mean(name, choices)}")
    return name


def upsample(x: Tensor, size: Sequence[int], mode: str = "nearest") -> Tensor:
    """Resize a coarse map to a finer one's size.

    Args:
        x (Tensor[N, C, h, w]): the coarse map.
        size: (H, W), at least (h, w); a map that has this size already is returned as it is.
        mode: one of `UPSAMPLINGS`.

    Returns:
        Tensor[N, C, H, W].

    Raises:
        UserError: unknown `mode`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import upsample
        >>> upsample(torch.ones(1, 8, 5, 6), (9, 12), "sni").mean()  # 30 / 108
        tensor(0.2778)
    """
    check_upsampling(mode, "upsample")
    size = (int(size[0]), int(size[1]))
    if tuple(x.shape[2:]) == size:
        return x
    if mode == "sni":
        return soft_nearest(x, size)
    if mode == "nearest":
        return F.interpolate(x, size=size, mode="nearest")
    return F.interpolate(x, size=size, mode="bilinear", align_corners=mode == "bilinear_corners")


def upsample_add(fine: Tensor, x: Tensor, mode: str = "nearest") -> Tensor:
    """`fine + upsample(x, size of fine, mode)`; the two nearest modes never make the upsampled map.

    Args:
        fine (Tensor[N, C, H, W]): the receiving map.
        x (Tensor[N, C, h, w]): the coarse map.
        mode: one of `UPSAMPLINGS`.

    Returns:
        Tensor[N, C, H, W].

    Raises:
        UserError: unknown `mode`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import upsample_add
        >>> upsample_add(torch.zeros(1, 8, 9, 12), torch.ones(1, 8, 5, 6)).mean()
        tensor(1.)
    """
    check_upsampling(mode, "upsample")
    if mode in ("nearest", "sni"):
        return soft_nearest_add(fine, x, alpha=1.0 if mode == "nearest" else "area")
    return fine + upsample(x, fine.shape[2:], mode)
