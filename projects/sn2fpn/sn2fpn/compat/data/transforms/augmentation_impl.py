"""Random changes of size, flips, crops and colours. The augmentations of `sn2fpn.data` draw sizes and windows."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from ....data import augmentation as own
from ....errors import ArgumentError
from ....ranges import check_number
from ...absent import absent
from .augmentation import Augmentation
from .transform import (
    BILINEAR,
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    ResizeTransform,
    Transform,
    VFlipTransform,
    check_interp,
)

__all__ = [
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomSaturation",
    "Resize",
    "ResizeShortestEdge",
]

__getattr__ = absent(__name__, __all__)

_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)


class RandomFlip(Augmentation):
    """A horizontal or a vertical flip with the probability `prob`."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False) -> None:
        if horizontal == vertical:
            raise ArgumentError("vertical", "expected one direction; use two RandomFlip for both")
        self.prob = check_number("prob", prob, at_least=0, at_most=1)
        self.horizontal, self.vertical = horizontal, vertical

    def get_transform(self, image: np.ndarray) -> Transform:
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return VFlipTransform(image.shape[0]) if self.vertical else HFlipTransform(image.shape[1])


class Resize(Augmentation):
    """A change of size to `shape`, which is (height, width) or one number for both."""

    def __init__(self, shape: int | tuple[int, int], interp: int = BILINEAR) -> None:
        check_interp(interp)
        self.shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape)


class ResizeShortestEdge(Augmentation):
    """A change of size that gives the short edge a drawn length and limits the long edge.

    Args:
        short_edge_length: (min, max) for the style "range", or lengths to choose from for "choice", in pixels.
        max_size: the limit of the long edge in pixels.
        sample_style: "range" or "choice".
        interp: PIL's bilinear filter, the only one that is served.

    Raises:
        ArgumentError: see `sn2fpn.data.augmentation.ResizeShortestEdge`.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = BILINEAR,
    ) -> None:
        check_interp(interp)
        one = isinstance(short_edge_length, int)
        self.short_edge_length = (short_edge_length, short_edge_length) if one else tuple(short_edge_length)
        self.max_size, self.sample_style, self.interp = max_size, sample_style, interp
        self._own = own.ResizeShortestEdge(self.short_edge_length, max_size, sample_style)

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        resize = self._own.plan((height, width), _generator())
        return NoOpTransform() if resize is None else ResizeTransform(height, width, *resize.new)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """Return the (height, width) that an image of (oldh, oldw) gets."""
        return own.ResizeShortestEdge.new_size((oldh, oldw), short_edge_length, max_size)


class RandomCrop(Augmentation):
    """A crop to a random window; see `sn2fpn.data.augmentation.RandomCrop` for the four types and their sizes."""

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        self.crop_type, self.crop_size = crop_type, crop_size
        self._own = own.RandomCrop(crop_type, crop_size)

    def get_transform(self, image: np.ndarray) -> Transform:
        crop = self._own.plan(image.shape[:2], _generator())
        return CropTransform(crop.x0, crop.y0, crop.size[1], crop.size[0])


class _RandomBlend(Augmentation):
    """A blend with another image, whose weight is one minus a number from `intensity_min` to `intensity_max`."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        self.intensity_min, self.intensity_max = intensity_min, intensity_max

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = self._rand_range(self.intensity_min, self.intensity_max)
        return BlendTransform(self._other(image), 1 - weight, weight)

    def _other(self, image: np.ndarray) -> np.ndarray | float:
        raise NotImplementedError


class RandomContrast(_RandomBlend):
    """A blend with the mean of the image, which changes the contrast."""

    def _other(self, image: np.ndarray) -> float:
        return float(image.mean())


class RandomBrightness(_RandomBlend):
    """A blend with black, which changes the brightness."""

    def _other(self, image: np.ndarray) -> float:
        return 0.0


class RandomSaturation(_RandomBlend):
    """A blend with the gray image, which changes the saturation of an RGB image."""

    def _other(self, image: np.ndarray) -> np.ndarray:
        return (image @ _LUMA)[..., None]


def _generator() -> np.random.Generator:
    """Return a random generator for the augmentations of `sn2fpn.data`, seeded by NumPy's global one."""
    return np.random.default_rng(np.random.randint(2**31))
