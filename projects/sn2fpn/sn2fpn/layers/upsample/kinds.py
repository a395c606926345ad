"""Upsampling modules by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ...errors import ArgumentError, did_you_mean
from ...ranges import check_number
from .base import Upsample
from .carafe import CARAFE
from .deconv import Deconv
from .dysample import DySample
from .interpolation import Bilinear, Nearest
from .sni import SNI

__all__ = ["Upsampling", "get_upsample"]

Upsampling = str | Callable[[int], nn.Module]
"""How callers ask for an upsampling: a name of `get_upsample`, or a callable that makes the module from the number of
channels."""

_KINDS: dict[str, Callable[[int], Upsample]] = {
    "nearest": lambda channels: Nearest(),
    "bilinear": lambda channels: Bilinear(),
    "bilinear_corners": lambda channels: Bilinear(align_corners=True),
    "sni": lambda channels: SNI(),
    "sni:learned": lambda channels: SNI(alpha="learned"),
    "deconv": Deconv,
    "carafe": CARAFE,
    "dysample": DySample,
    "dysample:dyscope": partial(DySample, dynamic_scope=True),
}


def get_upsample(kind: Upsampling, channels: int) -> Upsample:
    """Return a new upsampling module for maps of `channels` channels.

    Args:
        kind: one of these names, or a callable that makes an `Upsample` from the number of channels.

            - "nearest": nearest-neighbour interpolation.
            - "bilinear", "bilinear_corners": bilinear interpolation with half-pixel centres, or with aligned corners.
            - "sni", "sni:learned", "sni:0.5" (any positive number): nearest-neighbour interpolation, scaled by the
              ratio of pixel counts, by a learned factor, or by a fixed factor.
            - "deconv", "carafe", "dysample", "dysample:dyscope" (with a dynamic scope): see `Deconv`, `CARAFE` and
              `DySample`.

            Other settings take a callable, e.g. `functools.partial(DySample, groups=8)`.
        channels: number of channels of the maps.

    Raises:
        ArgumentError: the name is unknown, or the callable makes something else. The error names the argument
            `upsample`, which is how pyramids and layers call it.

    Example:
        >>> from sn2fpn.layers import get_upsample
        >>> get_upsample("sni:0.5", 256)
        SNI(scale_factor=2, alpha=0.5, interp='nearest')
    """
    if isinstance(kind, str) and kind not in _KINDS:
        return SNI(alpha=_sni_factor(kind))
    if isinstance(kind, str):
        try:
            return _KINDS[kind](channels)
        except ArgumentError as e:
            raise ArgumentError("upsample", f"{kind!r} cannot have {channels} channels ({e})") from e
    if isinstance(kind, nn.Module) or not callable(kind):
        raise ArgumentError("upsample", f"expected a name or a callable that makes the module, found {kind!r}")
    module = kind(channels)
    if not isinstance(module, Upsample):
        raise ArgumentError("upsample", f"expected a callable that makes an Upsample; it made {module!r}")
    return module


def _sni_factor(kind: str) -> float:
    """Return the number after "sni:"."""
    name, _, factor = kind.partition(":")
    if name != "sni":
        raise ArgumentError("upsample", f"unknown value {kind!r}{did_you_mean(kind, [*_KINDS, 'sni:0.5'])}")
    try:
        return check_number("upsample", float(factor), above=0)
    except ValueError:  # of `float`, or the ArgumentError of the check
        problem = f"expected 'learned' or a positive number after 'sni:', found {factor!r}"
        raise ArgumentError("upsample", problem) from None
