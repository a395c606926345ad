"""The backbone: a trunk and a pyramid as one module from images to pyramid maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..pyramids import Pyramid, pyramid_from_backbone_name
from .trunk import build_trunk

__all__ = ["build_backbone", "own_random_stream"]


def build_backbone(cfg: Any, name: str = "") -> Pyramid:
    """Return the pyramid that `MODEL.BACKBONE.NAME` names, on the trunk that `MODEL.BACKBONE.TRUNK` names.

    With the same seed, the trunk and everything that is built after the backbone get the same fresh weights under
    every pyramid, so that a comparison of pyramids starts from equal weights.

    Args:
        cfg: the configuration.
        name: the name to use instead of `MODEL.BACKBONE.NAME`.

    Returns:
        A module that maps images (Tensor[N, 3, H, W]) to {"p2": Tensor[N, C, H/4, W/4], ...} with the C channels of
        `MODEL.FPN.OUT_CHANNELS`. It has
        `output_shape()` and `size_divisibility`, and its trunk is `bottom_up`.

    Raises:
        UserError: there is no such pyramid, or the options of trunk and pyramid do not fit each other.
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
    """Draw the random numbers of the block from a stream of its own.

    The block takes one number of torch's stream, its seed, however many numbers it draws itself.
    """
    seed = int(torch.randint(2**62, (), device="cpu"))  # the device matters where modules are built on "meta"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
