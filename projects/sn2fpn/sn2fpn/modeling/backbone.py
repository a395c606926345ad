"""Trunk and pyramid as one module: images in, pyramid maps out."""

from __future__ import annotations

from typing import Any

from ..pyramids import Pyramid, pyramid_from_backbone_name
from .trunk import build_trunk

__all__ = ["build_backbone"]


def build_backbone(cfg: Any, name: str = "") -> Pyramid:
    """The pyramid that `MODEL.BACKBONE.NAME` (or `name`) names, on the trunk of `MODEL.RESNETS`.

    Returns:
        A module from images (Tensor[N, 3, H, W]) to {"p2": Tensor[N, W, H/4, W/4], …}, with `output_shape()`
        and `size_divisibility`; its trunk is `bottom_up`.

    Raises:
        UserError: an unknown pyramid, or trunk and pyramid options that do not fit.
    """
    build_pyramid = pyramid_from_backbone_name(name or cfg.MODEL.BACKBONE.NAME)
    trunk = build_trunk(cfg)
    pyramid = build_pyramid(cfg, trunk.output_shape())
    pyramid.bottom_up = trunk
    return pyramid
