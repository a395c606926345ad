"""Decoding image files: by content, upright (EXIF), three 8-bit channels, or a clear error."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError, did_you_mean

__all__ = ["check_format", "read_image", "read_image_size", "check_image_size", "FORMATS"]

logger = logging.getLogger(__name__)

FORMATS = ("BGR", "RGB", "L")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {  # EXIF orientation -> what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_format(format: str) -> None:
    """Raise UserError unless `read_image` knows the channel order."""
    if format not in FORMATS:
        raise UserError(f"INPUT.FORMAT: unknown image format {format!r}{did_you_mean(format, FORMATS)}")


def read_image(file_name: str | Path, format: str = "BGR") -> np.ndarray:
    """Decode an image file.

    The content decides the codec, not the file's name. EXIF orientation is applied, gray becomes three
    equal channels, alpha is dropped, CMYK is converted, 16 bits are scaled to 8.

    Args:
        format: channel order, "BGR" or "RGB", or "L" for gray.

    Returns:
        uint8 (H, W, 3), or (H, W, 1) for "L"; contiguous.

    Raises:
        UserError: missing, empty, truncated or undecodable file, or unknown `format`.
    """
    check_format(format)
    path = Path(file_name)
    with _open(path) as image:
        try:
            image.load()
        except Exception as e:  # decoders raise many types on damaged files
            raise _undecodable(path, e) from None
        method = _UPRIGHT.get(_orientation(image, path))
        upright = image if method is None else image.transpose(method)
        pixels = np.asarray(_to_8_bits(upright, path).convert("L" if format == "L" else "RGB"))
    if format == "L":
        return pixels[:, :, None]
    return np.ascontiguousarray(pixels[:, :, ::-1]) if format == "BGR" else pixels


def read_image_size(file_name: str | Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the file's header alone."""
    path = Path(file_name)
    with _open(path) as image:
        width, height = image.size
        turned = _orientation(image, path) >= 5
    return (width, height) if turned else (height, width)


def check_image_size(record: dict, image: np.ndarray) -> None:
    """Compare a decoded picture with the size in its data set dict; boxes fit only that size.

    Raises:
        UserError: the sizes differ.
    """
    found, expected = image.shape[:2], (record.get("height"), record.get("width"))
    if found != expected:
        raise UserError(
            f"{record['file_name']}: the picture is {found[1]}x{found[0]} (width x height) but the annotations "
            f"of image {record.get('image_id')!r} say {expected[1]}x{expected[0]}; correct one of the two"
        )


def _open(path: Path) -> Image.Image:
    """The image with its header read, its codec chosen by content."""
    try:
        return Image.open(path)
    except Exception as e:
        raise _undecodable(path, e) from None


def _undecodable(path: Path, error: Exception) -> UserError:
    if not path.exists():
        return UserError(f"{path}: image file does not exist")
    if path.is_file() and path.stat().st_size == 0:
        return UserError(f"{path}: image file is empty (0 bytes)")
    return UserError(f"{path}: not decodable as an image: {str(error) or type(error).__name__}")


def _orientation(image: Image.Image, path: Path) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception as e:  # a damaged EXIF block says nothing about the pixels; PIL raises many types
        logger.warning("%s: EXIF data unreadable (%s), taken as upright", path, e)
        return 1


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """16-bit gray scaled to 8 bits (PIL's own conversion would clip it to white)."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UserError(
            f"{path}: {image.mode!r} pixels beyond 16 bits have no defined brightness; save as 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values / 257.0).astype(np.uint8))
