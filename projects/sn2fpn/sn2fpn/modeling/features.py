"""Checks between a configuration's feature names and the maps that a pyramid offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UserError, did_you_mean
from ..structures import ShapeSpec

__all__ = ["common_channels", "pick_shapes"]


def pick_shapes(shapes: Mapping[str, ShapeSpec], names: Sequence[str], key: str) -> list[ShapeSpec]:
    """The shapes of the maps that the configuration's `key` names, in its order.

    Raises:
        UserError: no name, or one that the backbone does not output.
    """
    if not names:
        raise UserError(f"{key} is empty; choose from the backbone's outputs: {', '.join(shapes)}")
    for name in names:
        if name not in shapes:
            raise UserError(f"{key}: the backbone has no output {name!r}{did_you_mean(name, shapes)}")
    return [shapes[name] for name in names]


def common_channels(shapes: Sequence[ShapeSpec], key: str) -> int:
    """The channel count that all maps must share. Raises UserError when they do not."""
    channels = {s.channels for s in shapes}
    if len(channels) != 1:
        raise UserError(f"{key} expects maps of equal channels, found {[s.channels for s in shapes]}")
    return channels.pop()
