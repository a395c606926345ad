"""The pyramids by name: an entry builds one from the configuration and the trunk's description."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError, did_you_mean
from ..registry import Registry
from ..structures import ShapeSpec
from .base import Pyramid

__all__ = ["PYRAMIDS", "PyramidBuilder", "backbone_names", "pyramid_from_backbone_name", "register_pyramid"]

PyramidBuilder = Callable[[Any, Mapping[str, ShapeSpec]], Pyramid]

PYRAMIDS = Registry("pyramid")
"""Short name ("sni") -> `build(cfg, input_shape) -> Pyramid`; `input_shape` describes the trunk's maps."""


def register_pyramid(name: str) -> Callable[[PyramidBuilder], PyramidBuilder]:
    """Decorator: `MODEL.BACKBONE.NAME` "build_sn2_<name>_backbone" builds with the decorated function."""
    return PYRAMIDS.register(name)


def backbone_names() -> dict[str, PyramidBuilder]:
    """What `MODEL.BACKBONE.NAME` may be, with the pyramid that it stands for.

    For each pyramid "build_sn2_<pyramid>_backbone", with p6 by subsampling, and
    "build_sn2_<pyramid>_retinanet_backbone", with RetinaNet's p6 and p7; and Detectron2's two names for FPN.
    """
    names: dict[str, PyramidBuilder] = {}
    for name in PYRAMIDS:
        build = PYRAMIDS.get(name)
        names[f"build_sn2_{name}_backbone"] = build
        names[f"build_sn2_{name}_retinanet_backbone"] = _with_p6_p7(build)
    names["build_resnet_fpn_backbone"] = names["build_sn2_fpn_backbone"]
    names["build_retinanet_resnet_fpn_backbone"] = names["build_sn2_fpn_retinanet_backbone"]
    return names


def pyramid_from_backbone_name(backbone_name: str) -> PyramidBuilder:
    """The builder that a `MODEL.BACKBONE.NAME` stands for (`backbone_names`).

    Raises:
        UserError: no pyramid of that name.
    """
    known = backbone_names()
    if backbone_name not in known:
        hint = did_you_mean(backbone_name, known)
        short = re.fullmatch(r"\w+", backbone_name) and f"build_sn2_{backbone_name.lower()}_backbone"
        if short in known:
            hint = f"; did you mean {short!r}?"
        raise UserError(f"MODEL.BACKBONE.NAME: unknown backbone {backbone_name!r}{hint}")
    return known[backbone_name]


def _with_p6_p7(build: PyramidBuilder) -> PyramidBuilder:
    def build_with_p6_p7(cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> Pyramid:
        pyramid = build(cfg, input_shape)
        pyramid.add_p6_p7()
        return pyramid

    return build_with_p6_p7
