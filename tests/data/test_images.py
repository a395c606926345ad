"""Tests of reading images: every file gives the same upright RGB image, or a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.data import DatasetMapper, build_mapper
from sn2fpn.data.images import check_image_size, read_image, read_image_size
from sn2fpn.data.transforms import Crop, Flip, Resize
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.predict.inputs import read_picture

_Y, _X = np.mgrid[:40, :56] / 15.0
RGB = (128 + 90 * np.sin(np.stack([_X, _Y, _X + _Y], 2))).astype(np.uint8)  # a smooth colourful image


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_channel_orders(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    assert np.array_equal(read_image(path, "RGB"), RGB)
    assert np.array_equal(read_image(path, "BGR"), RGB[:, :, ::-1])
    assert read_image(path, "L").shape == (40, 56, 1)
    with pytest.raises(ArgumentError, match=r"^format: unknown value 'BGRA'; did you mean 'BGR'"):
        read_image(path, "BGRA")
    with pytest.raises(ArgumentError, match=r"^image_format: unknown value 'BGRA'"):
        DatasetMapper([], "BGRA")
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "BGRA"
    with pytest.raises(ArgumentError, match=r"^INPUT\.FORMAT: unknown value 'BGRA'"):
        build_mapper(cfg, is_train=True)


class _Own:
    """A transform of the user's own, which does what another one does."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transform, name)


class _Always:
    """An augmentation that always applies the same transform."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def plan(self, size: tuple[int, int], rng: object) -> Any:
        return self.transform


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_fast_copies_give_the_pixels_of_plain_ones(tmp_path: Path, image_format: str, vertical: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    file = save(tmp_path / "a.png", Image.fromarray(pixels))
    gray = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    expected = {"RGB": pixels, "BGR": pixels[:, :, ::-1], "L": gray}[image_format]
    read = read_image(file, image_format)
    assert read.flags.c_contiguous and read.dtype == np.uint8 and np.array_equal(read, expected)
    assert image_format != "BGR" or read.flags.writeable
    record = {"file_name": str(file), "height": 37, "width": 51, "image_id": 1}
    window = expected[3:23, 4:34]  # a view with gaps between its rows
    flipped = window[::-1] if vertical else window[:, ::-1]
    crop, flip, resize = Crop(3, 4, (20, 30)), Flip((20, 30), vertical), Resize((20, 30), (45, 31))
    resized = resize.apply_image(np.ascontiguousarray(flipped))
    for transforms, image in (((), expected), ((crop, flip), flipped), ((crop, flip, resize), resized)):
        for own in (False, True):  # a transform that is no transform of the package takes arrays
            plans = [_Always(_Own(t) if own else t) for t in transforms]
            found = DatasetMapper(plans, image_format, False)(record, np.random.default_rng(0))["image"]
            assert found.is_contiguous() and np.array_equal(found.numpy(), image.transpose(2, 0, 1))


def test_memory_of_images_is_used_again() -> None:
    before = Image.core.get_stats()["allocated_blocks"]
    for _ in range(5):
        Image.new("RGB", (640, 480)).resize((800, 600))
    assert Image.core.get_stats()["allocated_blocks"] - before <= 2  # instead of 10


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "png_inside.jpg", Image.fromarray(RGB), format="PNG")
    assert np.array_equal(read_image(path, "RGB"), RGB)


def test_gray_cmyk_alpha_and_palette_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    gray = read_image(save(tmp_path / "gray.jpg", image.convert("L")), "RGB")
    assert gray.shape == (40, 56, 3) and np.ptp(gray, axis=2).max() == 0
    cmyk = read_image(save(tmp_path / "cmyk.jpg", image.convert("CMYK"), quality=98), "RGB")
    assert np.abs(cmyk.astype(int) - RGB).mean() < 4  # inverted colours would differ by about 100
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 56).astype(np.uint8), (40, 1)))
    rgba = image.copy()
    rgba.putalpha(alpha)
    assert np.array_equal(read_image(save(tmp_path / "rgba.png", rgba), "RGB"), RGB)
    flat = Image.new("P", (8, 8), 3)
    flat.putpalette([v for i in range(256) for v in (i * 10 % 256, i * 20 % 256, 200)])
    assert (read_image(save(tmp_path / "palette.png", flat), "RGB") == [30, 60, 200]).all()


@pytest.mark.parametrize("name", ["gray.png", "gray.tif", "gray.pgm", "color.png", "color.tif", "color.ppm"])
def test_dark_16_bit_pictures_are_warned_about_in_each_folder_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """12-bit numbers in 16 bits are nearly black; full 16-bit pictures and dark 8-bit ones are as they should be."""
    monkeypatch.setattr("sn2fpn.data.images._dark_folders", set())  # pytest may give a removed folder's name again
    shape = (8, 8) if name.startswith("gray") else (8, 8, 3)
    good, dark = np.full(shape, 40000, np.uint16), np.full(shape, 4095, np.uint16)
    (tmp_path / "dark").mkdir()
    for path, pixels in ((tmp_path / name, good), (tmp_path / f"8_bits_{name}", np.full(shape, 9, np.uint8))):
        cv2.imwrite(str(path), pixels)
        read_image(path)
    assert not caplog.records
    for path in (tmp_path / "dark" / name, tmp_path / "dark" / f"b_{name}"):
        cv2.imwrite(str(path), dark)
        assert abs(int(read_image(path).max()) - 16) <= 1
    assert len(caplog.records) == 1
    assert f"dark/{name}: the 16-bit pixels are at most about" in caplog.text


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 40 * 56).reshape(40, 56).astype(np.uint16)
    found = read_image(save(tmp_path / "gray16.png", Image.fromarray(values)), "RGB")[:, :, 0]
    assert np.abs(found - values / 257).max() <= 0.5


def _upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Return the upright image of stored pixels with an EXIF orientation from 1 to 8."""
    turned = stored.transpose(1, 0, 2)
    return [
        stored,
        np.fliplr(stored),
        np.rot90(stored, 2),
        np.flipud(stored),
        turned,
        np.rot90(stored, -1),
        np.rot90(turned, 2),
        np.rot90(stored),
    ][orientation - 1]


UPRIGHT = {orientation: _upright(RGB, orientation) for orientation in range(1, 9)}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", image, exif=exif)
    assert np.array_equal(read_image(path, "RGB"), UPRIGHT[orientation])
    assert read_image_size(path) == UPRIGHT[orientation].shape[:2]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_turned_tiff_files(tmp_path: Path, mode: str, compression: str) -> None:
    """PIL exchanges the sides of some when it opens them, and shears the pixels of some."""
    gray = np.asarray(Image.fromarray(RGB).convert("L"))
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    shown = image if mode != "I;16" else Image.fromarray(gray)
    expected = np.asarray(shown.convert("RGB"))
    for orientation in UPRIGHT:
        path = save(tmp_path / f"{orientation}.tif", image, compression=compression, tiffinfo={0x0112: orientation})
        upright = _upright(expected, orientation)
        assert read_image_size(path) == upright.shape[:2]
        for found in (read_image(path, "RGB"), read_picture(path)[:, :, ::-1]):
            assert np.array_equal(found, upright)


def test_damaged_exif_data_do_not_hide_the_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path / "exif.png", Image.fromarray(RGB), exif=b"Exif\0\0garbage!!")
    assert np.array_equal(read_image(path, "RGB"), RGB) and read_image_size(path) == RGB.shape[:2]
    assert "exif.png: the EXIF data cannot be read" in caplog.text


def test_unreadable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.jpg", Image.fromarray(RGB)).read_bytes()
    cases = {
        "cut.jpg": (whole[: len(whole) * 55 // 100], "[Tt]runcated"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"no picture", "not decodable"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match=r"gone\.jpg.*does not exist"):
        read_image(tmp_path / "gone.jpg")


def test_size_disagreement_names_both_sizes() -> None:
    record = {"file_name": "a.jpg", "image_id": 4, "height": 213, "width": 320}
    check_image_size(record, np.zeros((213, 320, 3)))
    with pytest.raises(UserError, match=r"a\.jpg.*199x213.*320x213"):
        check_image_size(record, np.zeros((213, 199, 3)))
