"""Reading of image files into upright arrays with three 8-bit channels."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import UserError, check_choice
from .readings import depends_on

__all__ = [
    "FORMATS",
    "as_array",
    "as_planes",
    "check_image_size",
    "decode_image",
    "is_deep_gray",
    "is_unchanged",
    "read_image",
    "read_image_size",
]

logger = logging.getLogger(__name__)

# PIL returns the memory of each image to the system, unless it may keep blocks (of at most 16 MiB each). New memory
# costs a fifth of the time in which an image is decoded, resized and flipped, which takes four blocks.
_BLOCKS = 4
if Image.core.get_blocks_max() < _BLOCKS:
    Image.core.set_blocks_max(_BLOCKS)

FORMATS = ("BGR", "RGB", "L")
_DARK = 64
"""A 16-bit picture whose 8-bit values stay below this probably holds numbers of 14 bits or fewer."""


def read_image(file_name: str | Path, format: str = "BGR") -> np.ndarray:
    """Read an image file.

    The content of the file decides how it is decoded, not its name. The EXIF orientation is applied, gray images get
    three equal channels, an alpha channel is dropped, CMYK is converted, and 16 bits are scaled to 8.

    Args:
        format: the channel order "BGR" or "RGB", or "L" for gray.

    Returns:
        A contiguous uint8 array of shape (H, W, 3), or (H, W, 1) for "L".

    Raises:
        ArgumentError: `format` is unknown.
        UserError: the file is missing, empty, truncated or not decodable.
    """
    return as_array(decode_image(file_name, format), format)


def decode_image(file_name: str | Path, format: str = "BGR") -> Image.Image:
    """Read an image file as PIL's image of the mode "RGB", or "L" for the format "L"; see `read_image`."""
    check_choice("format", format, FORMATS)
    path, mode = Path(file_name), "L" if format == "L" else "RGB"
    with _open(path) as image:
        deep = _has_16_bits(image)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image) if _orientation(image, path) > 1 else image
        except Exception as e:  # decoders raise errors of many types for damaged files
            raise _undecodable(path, e) from None
        shallow = _to_8_bits(upright, path)
        out = shallow if shallow.mode == mode else shallow.convert(mode)
    if deep and (brightest := int(np.max(out.getextrema()))) < _DARK:
        _warn_dark(path, brightest)
    return out


def as_array(image: Image.Image, format: str) -> np.ndarray:
    """Return what `read_image` returns for an image of `decode_image`."""
    if format == "BGR":  # PIL turns the channels round while it copies them; NumPy takes four times as long
        return np.frombuffer(bytearray(image.tobytes("raw", "BGR")), np.uint8).reshape(image.height, image.width, 3)
    return np.asarray(image).reshape(image.height, image.width, -1)


def as_planes(image: Image.Image, format: str) -> np.ndarray:
    """Return an image of `decode_image` as an array (C, H, W), whose channels have the order of `format`."""
    planes = np.empty((len(format), image.height, image.width), np.uint8)
    for plane, channel in zip(planes, format):
        plane[:] = np.frombuffer(image.tobytes("raw", channel), np.uint8).reshape(plane.shape)
    return planes


def read_image_size(file_name: str | Path) -> tuple[int, int]:
    """Return the (height, width) of the upright image. Only the header of the file is read."""
    path = Path(file_name)
    depends_on(path)
    with _open(path) as image:
        width, height = _stored_size(image)
        turned = 5 <= _orientation(image, path) <= 8
    return (width, height) if turned else (height, width)


def is_deep_gray(file_name: str | Path) -> bool:
    """Return whether an image is gray with more than 8 bits, which PIL converts to white where it is not nearly black.

    Only the header of the file is read. `read_image` scales such images.
    """
    with _open(Path(file_name)) as image:
        return _is_deep_gray(image)


def is_unchanged(image: Image.Image, file_name: str | Path) -> bool:
    """Return whether `read_image` gives the pixels of an image that was opened from this file.

    It does not if they were changed since, or if the image is as it was stored and has to be turned upright.
    """
    path = Path(file_name)
    with _open(path) as stored:
        if _orientation(stored, path) != 1 or (stored.mode, stored.size) != (image.mode, image.size):
            return False
        if getattr(image, "tile", ()) and image.tell() == 0:  # it has not been decoded yet
            return True
        with suppress(Exception):  # decoders raise errors of many types for damaged files
            return stored.getpalette() == image.getpalette() and stored.tobytes() == image.tobytes()
    return False


def check_image_size(record: dict, image: np.ndarray | Image.Image) -> None:
    """Check that an image has the size that its data set dict gives, because the boxes only fit that size.

    Raises:
        UserError: the sizes differ.
    """
    found = image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]
    expected = (record.get("height"), record.get("width"))
    if found != expected:
        raise UserError(
            f"{record['file_name']}: the image is {found[1]}x{found[0]} (width x height) but the annotations "
            f"of image {record.get('image_id')!r} say {expected[1]}x{expected[0]}; correct one of the two"
        )


def _open(path: Path) -> Image.Image:
    """Open an image and read its header."""
    try:
        image = Image.open(path)
    except Exception as e:
        raise _undecodable(path, e) from None
    if isinstance(image, TiffImageFile):
        image.filename = ""  # PIL maps files with a name into memory, with the sides exchanged if they are turned
    return image


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the (width, height) of the pixels in the file. For a TIFF, PIL may give those of the upright image."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
    return image.size


def _undecodable(path: Path, error: Exception) -> UserError:
    with suppress(OSError, ValueError):  # the name is too long or has a zero byte
        if not path.exists():
            return UserError(f"{path}: image file does not exist")
        if path.is_file() and path.stat().st_size == 0:
            return UserError(f"{path}: image file is empty (0 bytes)")
    return UserError(f"{path}: not decodable as an image: {str(error) or type(error).__name__}")


def _orientation(image: Image.Image, path: Path) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as e:  # PIL raises errors of many types for damaged EXIF data
        logger.warning("%s: the EXIF data cannot be read (%s), so the image is taken as upright", path, e)
        return 1


def _has_16_bits(image: Image.Image) -> bool:
    """Return whether the pixels in a file have 16 bits. It must be asked before they are loaded."""
    if image.mode.startswith("I"):
        return True
    # Colours are loaded with 8 bits each, and only the raw format, such as "RGB;16B" or ("RGB", 65535), tells.
    raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
    return any(";16" in args or "65535" in args for args in raw)


_dark_folders: set[Path] = set()


def _warn_dark(path: Path, brightest: int) -> None:
    """Warn about a dark 16-bit picture, once in each folder, because training reads it again in every epoch."""
    if path.parent in _dark_folders:
        return
    _dark_folders.add(path.parent)
    logger.warning(
        "%s: the 16-bit pixels are at most about %d of 65,535, so the image is nearly black (as others in its folder "
        "may be); if they hold numbers of fewer bits, scale them to 16 bits or save them with 8",
        path,
        brightest * 257,
    )


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale 16-bit gray to 8 bits, because PIL's own conversion would clip it to white."""
    if not _is_deep_gray(image):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UserError(
            f"{path}: {image.mode!r} pixels beyond 16 bits have no defined brightness; save as 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values / 257.0).astype(np.uint8))
