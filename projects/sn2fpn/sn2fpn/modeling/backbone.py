"""Trunk and pyramid as one module: images in, pyramid maps out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..pyramids import Pyramid, pyramid_from_backbone_name
from .trunk import build_trunk

__all__ = ["build_backbone", "own_random_stream"]


def build_backbone(cfg: Any, name: str = "") -> Pyramid:
    """The pyramid that `MODEL.BACKBONE.NAME` (or `name`) names, on the trunk of `MODEL.RESNETS`.

    For a seed, the fresh weights of the trunk, and of all that is built afterwards, are the same under every pyramid,
    so that a comparison of pyramids starts from equal weights.

    Returns:
        A module from images (Tensor[N, 3, H, W]) to {"p2": Tensor[N, W, H/4, W/4], …}, with `output_shape()`
        and `size_divisibility`; its trunk is `bottom_up`.

    Raises:
        UserError: an unknown pyramid, or trunk and pyramid options that do not fit.
    """
    build_pyramid = pyramid_from_backbone_name(name or cfg.MODEL.BACKBONE.NAME)
    with own_random_stream():
        trunk = build_trunk(cfg)
    with own_random_stream():
        pyramid = build_pyramid(cfg, trunk.output_shape())
    pyramid.bottom_up = trunk
    return pyramid


@contextmanager
def own_random_stream() -> Iterator[None]:
    """Whatever is drawn inside takes one number of torch's random stream, however much it is."""
    seed = int(torch.randint(2**62, (), device="cpu"))  # also where modules are built on "meta"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
