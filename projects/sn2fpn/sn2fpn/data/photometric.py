"""Photometric augmentation, which changes the colours of a picture and leaves its objects where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from PIL import Image

from ..errors import ArgumentError, argument_names, keys_of
from ..ranges import check_each, check_number

__all__ = ["PhotometricDistortion", "build_photometric"]

Range = Sequence[float]  # (min, max)


class PhotometricDistortion:
    """A random change of brightness, contrast, saturation and hue (Liu et al., "SSD", ECCV 2016).

    It is `torchvision.transforms.v2.RandomPhotometricDistort`, which also permutes the channels. Each of the five
    changes happens with the probability `prob`.

    Args:
        brightness: (min, max) of the factor on all pixels.
        contrast: (min, max) of the factor on the differences to the mean.
        saturation: (min, max) of the factor on the differences to gray.
        hue: (min, max) of the shift of the hue in turns, from -0.5 to 0.5.
        prob: the probability of each change.

    Raises:
        ArgumentError: a range is not two numbers in increasing order, or a number is out of its bounds.
    """

    def __init__(
        self,
        brightness: Range = (0.875, 1.125),
        contrast: Range = (0.5, 1.5),
        saturation: Range = (0.5, 1.5),
        hue: Range = (-0.05, 0.05),
        prob: float = 0.5,
    ) -> None:
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        ranges = {name: _check_range(name, found, at_least=0) for name, found in factors.items()}
        ranges["hue"] = _check_range("hue", hue, at_least=-0.5, at_most=0.5)
        self._options: dict[str, Any] = {**ranges, "p": check_number("prob", prob, at_least=0, at_most=1)}

    @cached_property
    def _distort(self) -> Callable[[Image.Image], Image.Image]:
        from torchvision.transforms import v2  # imports most of torchvision

        return v2.RandomPhotometricDistort(**self._options)

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return a picture with other colours, drawn with torch's global generator."""
        return self._distort(picture)


def _check_range(name: str, found: Range, **bounds: float) -> tuple[float, float]:
    low, high = check_each(name, found, check_number, length=2, **bounds)
    if low > high:
        raise ArgumentError(name, f"expected (min, max), found {(low, high)}")
    return low, high


def build_photometric(cfg: Any) -> PhotometricDistortion | None:
    """Build the photometric distortion of `cfg.INPUT.PHOTOMETRIC`, or None if it is off.

    Raises:
        ArgumentError: a key has a wrong value.
    """
    c = cfg.INPUT.PHOTOMETRIC
    with argument_names(keys_of("INPUT.PHOTOMETRIC")):  # also if it is off, since a wrong value is a mistake then, too
        distortion = PhotometricDistortion(c.BRIGHTNESS, c.CONTRAST, c.SATURATION, c.HUE, c.PROB)
    return distortion if c.ENABLED else None
