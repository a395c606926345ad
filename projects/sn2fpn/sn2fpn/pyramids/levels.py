"""The maps that a pyramid reads, described once for all pyramids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ..errors import ArgumentError, did_you_mean
from ..ranges import check_count
from ..structures import ShapeSpec

__all__ = ["InputShape", "Levels", "check_maps", "check_sizes", "named_maps"]

InputShape = Mapping[str, ShapeSpec] | Sequence[int]
"""A trunk's maps: either a description by name, or only the channels of res2, res3, … at strides 4, 8, …"""


@dataclass(frozen=True)
class Levels:
    """The trunk maps that a pyramid reads, from fine to coarse, and the width of the maps that it returns.

    Attributes:
        names: names of the trunk maps, e.g. ("res2", "res3", "res4", "res5").
        strides: their strides, each twice the one before, e.g. (4, 8, 16, 32).
        channels: their channels.
        width: channels W of every output map.

    Example:
        >>> from sn2fpn.pyramids import Levels
        >>> levels = Levels.of([256, 512, 1024, 2048], width=256)
        >>> levels.names[0], levels.strides[0], levels.numbers
        ('res2', 4, (2, 3, 4, 5))
    """

    names: tuple[str, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, input_shape: InputShape, width: int, in_features: Sequence[str] = ()) -> Levels:
        """Return the levels that a pyramid uses of a trunk.

        Args:
            input_shape: the description of the trunk's maps.
            width: channels of every output map.
            in_features: names of the maps to use, from fine to coarse. All maps are used when it is empty.

        Raises:
            ArgumentError: a width that is no positive whole number, a name in `in_features` that the trunk does not
                have, no map at all, a map of unknown channels or stride, or strides that do not double.
        """
        check_count("out_channels", width)
        maps = named_maps(input_shape)
        if isinstance(in_features, str):
            raise ArgumentError("in_features", f"expected a list of names, found {in_features!r}")
        for name in in_features:
            if name not in maps:
                raise ArgumentError("in_features", f"the trunk has no output {name!r}{did_you_mean(str(name), maps)}")
        names = tuple(in_features) or tuple(maps)
        if not names:
            raise ArgumentError("input_shape", "expected at least one map of the trunk, found none")
        channels = tuple(check_count(f"input_shape[{name!r}].channels", maps[name].channels) for name in names)
        strides = tuple(check_count(f"input_shape[{name!r}].stride", maps[name].stride) for name in names)
        finest = int(math.log2(strides[0]))
        if strides != tuple(2 ** (finest + i) for i in range(len(names))):
            raise ArgumentError(
                "in_features" if in_features else "input_shape",
                "expected maps whose strides are powers of two and double from fine to coarse,"
                f" found {dict(zip(names, strides))}",
            )
        return cls(names, strides, channels, width)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Base-2 logarithms of the strides, e.g. (2, 3, 4, 5)."""
        return tuple(int(math.log2(stride)) for stride in self.strides)


def named_maps(input_shape: InputShape) -> dict[str, ShapeSpec]:
    """Return the description of a trunk's maps by name; bare channels get the names res2, res3, …

    Raises:
        ArgumentError: something else than a mapping to `ShapeSpec` or a sequence of whole numbers.
    """
    if isinstance(input_shape, Mapping) and all(hasattr(spec, "stride") for spec in input_shape.values()):
        return dict(input_shape)  # of this project's ShapeSpec or of Detectron2's
    if not isinstance(input_shape, Sequence) or not all(isinstance(channels, int) for channels in input_shape):
        raise ArgumentError(
            "input_shape",
            "expected the channels of a trunk's maps, such as [256, 512, 1024, 2048], or the description that a trunk's"
            f" `output_shape()` returns; found {input_shape!r}",
        )
    return {f"res{i}": ShapeSpec(channels=c, stride=2**i) for i, c in enumerate(input_shape, start=2)}


def check_maps(maps: Mapping[str, Tensor], channels: Sequence[int]) -> None:
    """Check that maps have the dimensions (N, C, H, W), the given channels and the same N.

    Raises:
        ValueError: one has not; the message names the map.
    """
    batch = next(iter(maps.values())).shape[:1]
    for (name, x), expected in zip(maps.items(), channels):
        if x.dim() != 4 or x.shape[1] != expected or x.shape[:1] != batch:
            n = batch[0] if batch else "N"
            raise ValueError(f"{name}: expected a map of shape ({n}, {expected}, H, W), found {tuple(x.shape)}")


def check_sizes(maps: Mapping[str, Tensor], cause: Exception) -> None:
    """Check that the sizes of maps halve and round up from each to the next.

    Raises:
        ValueError: they do not; `cause` is the error that this has led to.
    """
    sizes = {name: tuple(x.shape[2:]) for name, x in maps.items()}
    for (height, width), coarse in pairwise(sizes.values()):
        if coarse != ((height + 1) // 2, (width + 1) // 2):
            raise ValueError(
                f"the pyramid needs maps whose sizes halve and round up from one to the next, found {sizes}"
            ) from cause
