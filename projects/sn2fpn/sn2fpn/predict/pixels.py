"""Bring what a caller gives as a picture into one form, or say what is wrong with it."""

from __future__ import annotations

import logging
import warnings
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ArgumentError

__all__ = ["as_pixels"]

logger = logging.getLogger(__name__)

_MOST = 255


def as_pixels(image: Any, channels: int, is_part: bool = False) -> np.ndarray:
    """Return a picture as an array [H, W, C] of uint8, or of float32 if its numbers are floats.

    Args:
        image: an array, a tensor on any device or nested lists (H, W, C) with whole numbers or floats from 0 to 255.
        channels: the number of channels C that the model reads.
        is_part: whether it is a part of a picture, which may be dark without a mistake.

    Raises:
        ArgumentError: `image` has another shape or another kind of numbers, has no pixels, or has numbers beyond
            0..255.
    """
    pixels = _as_array(image, channels)
    if pixels.dtype.kind not in "uif":
        raise _unusable(channels, f"found numbers of the type {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
        raise _unusable(channels, f"found {pixels.shape} {pixels.dtype}{_hint(pixels, channels)}")
    if pixels.dtype == np.uint8:
        return pixels
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= _MOST):  # NaN fails this too.
        raise _unusable(channels, f"found numbers from {low:g} to {high:g}{_range_hint(low, high)}")
    if pixels.dtype.kind in "ui":
        return pixels.astype(np.uint8)
    if 0 < high <= 1 and not is_part:
        logger.warning(
            "image: the floats of this picture are at most %g, so it is nearly black to the model; floats from 0 to 1 "
            "must be multiplied by 255",
            high,
        )
    return pixels.astype(np.float32)


def _as_array(image: Any, channels: int) -> np.ndarray:
    """Return an array, which need not fit."""
    if isinstance(image, str | PurePath):
        raise _unusable(channels, "found a file name; read the file with sn2fpn.data.read_image(path)")
    if isinstance(image, Image.Image):
        hint = 'convert it with np.asarray(image.convert("RGB"))[:, :, ::-1]'
        raise _unusable(channels, f"found a picture of PIL, whose channels are in another order; {hint}")
    try:
        if isinstance(image, Tensor):
            image = image.detach().cpu()
            # NumPy has no bfloat16, and float32 holds all of its numbers.
            return (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Old versions of NumPy warn about rows of different lengths.
            return np.asarray(image)
    except Exception as e:  # Any object may stand here, and its own conversion may raise any error.
        problem = f"found a {type(image).__name__} that is no array: {str(e).splitlines()[0] if str(e) else e!r}"
        raise _unusable(channels, problem) from None


def _unusable(channels: int, problem: str) -> ArgumentError:
    kind = "BGR array" if channels == 3 else "array"
    model = "" if channels == 3 else f", because the model reads {channels} channels (MODEL.PIXEL_MEAN)"
    expected = f"expected a {kind} (height, width, {channels}) of uint8, or of other numbers from 0 to 255{model}"
    return ArgumentError("image", f"{expected}, {problem}")


def _hint(pixels: np.ndarray, channels: int) -> str:
    """Return what makes a picture of another shape fit, if that is clear."""
    shape = pixels.shape
    if len(shape) == 4 and shape[0] == 1:
        return "; give one picture and not a batch, e.g. image[0]"
    if len(shape) == 3 and shape[0] == channels and shape[2] != channels:
        return "; bring the channels to the end with image.transpose(1, 2, 0), or permute(1, 2, 0) for a tensor"
    if len(shape) == 2 and channels == 3:
        return "; a gray picture needs three equal channels, e.g. cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
    if len(shape) == 3 and shape[2] in (1, 4) and channels == 3:
        code = "GRAY2BGR" if shape[2] == 1 else "BGRA2BGR"
        return f"; convert it with cv2.cvtColor(image, cv2.COLOR_{code})"
    return ""


def _range_hint(low: Any, high: Any) -> str:
    if low >= 0 and 4095 <= high <= 65535:
        return "; 16-bit pictures must be divided by 257, and 12-bit ones by 16"
    if -1 <= low < 0 and high <= 1:
        return "; floats from -1 to 1 must be brought to 0..255"
    return ""
