"""Checks that the feature names of a detector's part fit the maps of its pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ArgumentError, did_you_mean
from ..ranges import check_count
from ..structures import ShapeSpec

__all__ = ["common_channels", "pick_shapes"]


def pick_shapes(shapes: Mapping[str, ShapeSpec], in_features: Sequence[str]) -> list[ShapeSpec]:
    """Return the shapes of the maps that `in_features` names, in its order.

    Raises:
        ArgumentError: `in_features` is empty, is no list, or names a map twice or one that is not in `shapes`.
    """
    if isinstance(in_features, str):
        raise ArgumentError("in_features", f"expected a list of names, found {in_features!r}")
    if not in_features:
        raise ArgumentError("in_features", f"expected some of the backbone's outputs {list(shapes)}, found none")
    for name in in_features:
        if name not in shapes:
            raise ArgumentError("in_features", f"the backbone has no output {name!r}{did_you_mean(str(name), shapes)}")
    if len(set(in_features)) < len(in_features):
        raise ArgumentError("in_features", f"expected each name once, found {list(in_features)}")
    return [shapes[name] for name in in_features]


def common_channels(in_features: Sequence[ShapeSpec]) -> int:
    """Return the number of channels that all maps share.

    Raises:
        ArgumentError: the maps have different numbers of channels, or an unknown one.
    """
    channels = [shape.channels for shape in in_features]
    if len(set(channels)) != 1:
        raise ArgumentError("in_features", f"expected maps of equal channels, found {channels}")
    return check_count("in_features", channels[0])
