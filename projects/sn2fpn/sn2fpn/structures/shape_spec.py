"""The description of a feature map."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ShapeSpec"]


class ShapeSpec(NamedTuple):
    """The channels, size and stride (input pixels per map pixel) of a feature map; None where they are unknown."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
