"""A file of a user's own that registers a pyramid, for the tests of `--import`."""

from __future__ import annotations

from pathlib import Path

OWN_PYRAMID = """
import my_helper_{name}
from sn2fpn.pyramids import FPN, register_pyramid

@register_pyramid("{name}")
def build(cfg, input_shape):
    return FPN(input_shape, cfg.MODEL.FPN.OUT_CHANNELS, in_features=cfg.MODEL.FPN.IN_FEATURES)
"""


def write_pyramid(folder: Path, name: str) -> Path:
    """Write a file that registers the pyramid `name` and imports another file beside it, and return its path."""
    (folder / f"my_helper_{name}.py").write_text("")
    path = folder / f"my_{name}.py"
    path.write_text(OWN_PYRAMID.format(name=name))
    return path
