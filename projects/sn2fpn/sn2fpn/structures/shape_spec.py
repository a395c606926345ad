"""What a feature map looks like, as data."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ShapeSpec"]


class ShapeSpec(NamedTuple):
    """Channels and stride (input pixels per map pixel) of a feature map; None where unknown."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
