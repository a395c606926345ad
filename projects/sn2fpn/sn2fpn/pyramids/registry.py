"""The pyramids by name: an entry builds one from the configuration and the trunk's description."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError, did_you_mean
from ..registry import Registry
from ..structures import ShapeSpec
from .base import Pyramid

__all__ = ["PYRAMIDS", "PyramidBuilder", "pyramid_from_backbone_name", "register_pyramid"]

PyramidBuilder = Callable[[Any, Mapping[str, ShapeSpec]], Pyramid]

PYRAMIDS = Registry("pyramid")
"""Short name ("sni") -> `build(cfg, input_shape) -> Pyramid`; `input_shape` describes the trunk's maps."""

_DETECTRON2_NAMES = {"build_resnet_fpn_backbone": "fpn"}


def register_pyramid(name: str) -> Callable[[PyramidBuilder], PyramidBuilder]:
    """Decorator: `MODEL.BACKBONE.NAME` "build_sn2_<name>_backbone" builds with the decorated function."""
    return PYRAMIDS.register(name)


def pyramid_from_backbone_name(backbone_name: str) -> PyramidBuilder:
    """The builder that a `MODEL.BACKBONE.NAME` stands for.

    Args:
        backbone_name: "build_sn2_<pyramid>_backbone", or Detectron2's "build_resnet_fpn_backbone" for FPN.

    Raises:
        UserError: no pyramid of that name.
    """
    known = {f"build_sn2_{name}_backbone": name for name in PYRAMIDS} | _DETECTRON2_NAMES
    if backbone_name not in known:
        hint = did_you_mean(backbone_name, known)
        short = re.fullmatch(r"\w+", backbone_name) and f"build_sn2_{backbone_name.lower()}_backbone"
        if short in known:
            hint = f"; did you mean {short!r}?"
        raise UserError(f"MODEL.BACKBONE.NAME: unknown backbone {backbone_name!r}{hint}")
    return PYRAMIDS.get(known[backbone_name])
