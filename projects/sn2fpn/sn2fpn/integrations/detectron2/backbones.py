"""This project's pyramids and trunk as backbones in Detectron2's registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from ...errors import UserError
from ...modeling import build_backbone
from ...modeling.trunk import ResNet, TimmTrunk, build_trunk
from ...pyramids import Pyramid, backbone_names

__all__ = ["origin_of_backbone", "register_backbones"]


def register_backbones() -> None:
    """Register every name of `backbone_names`, and `build_sn2_resnet_backbone`, that Detectron2 does not have yet.

    The latter is the trunk alone, with or without ESD, for use as `bottom_up` of other pyramids. Call this function
    again after you have registered a pyramid with `register_pyramid`.
    """
    for name in backbone_names():
        _register(name, lambda cfg, name: build_backbone(cfg, name))
    _register("build_sn2_resnet_backbone", lambda cfg, _: build_trunk(cfg))


def origin_of_backbone(name: str) -> str:
    """Return the package that a registered backbone comes from: "sn2fpn", "detectron2", or that of somebody else."""
    return BACKBONE_REGISTRY.get(name).__module__.partition(".")[0]


def _register(name: str, make: Callable[[Any, str], nn.Module]) -> None:
    if name in BACKBONE_REGISTRY:
        return

    def build(cfg: Any, input_shape: Any) -> nn.Module:
        if "ESD" not in cfg.MODEL:
            raise UserError(
                f"{name} needs the study's keys in the configuration: call "
                "sn2fpn.integrations.detectron2.add_sn2fpn_config(cfg) before merging files"
            )
        return make(cfg, name)

    build.__name__ = build.__qualname__ = name
    BACKBONE_REGISTRY.register(build)


# Detectron2 asserts that a backbone is a Backbone. Ours have the methods of one, but do not import Detectron2.
Backbone.register(Pyramid)
Backbone.register(ResNet)
Backbone.register(TimmTrunk)
