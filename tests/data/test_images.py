"""Decoding: the same upright RGB picture whatever the file looks like, or a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sn2fpn.data.images import check_image_size, read_image, read_image_size
from sn2fpn.errors import UserError

_Y, _X = np.mgrid[:40, :56] / 15.0
RGB = (128 + 90 * np.sin(np.stack([_X, _Y, _X + _Y], 2))).astype(np.uint8)  # smooth and colourful


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_channel_orders(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    assert np.array_equal(read_image(path, "RGB"), RGB)
    assert np.array_equal(read_image(path, "BGR"), RGB[:, :, ::-1])
    assert read_image(path, "L").shape == (40, 56, 1)
    with pytest.raises(UserError, match=r"INPUT\.FORMAT.*'BGRA'.*did you mean 'BGR'"):
        read_image(path, "BGRA")


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "png_inside.jpg", Image.fromarray(RGB), format="PNG")
    assert np.array_equal(read_image(path, "RGB"), RGB)


def test_gray_cmyk_alpha_and_palette_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    gray = read_image(save(tmp_path / "gray.jpg", image.convert("L")), "RGB")
    assert gray.shape == (40, 56, 3) and np.ptp(gray, axis=2).max() == 0
    cmyk = read_image(save(tmp_path / "cmyk.jpg", image.convert("CMYK"), quality=98), "RGB")
    assert np.abs(cmyk.astype(int) - RGB).mean() < 4  # inverted colours would be off by about 100
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 56).astype(np.uint8), (40, 1)))
    rgba = image.copy()
    rgba.putalpha(alpha)
    assert np.array_equal(read_image(save(tmp_path / "rgba.png", rgba), "RGB"), RGB)
    flat = Image.new("P", (8, 8), 3)
    flat.putpalette([v for i in range(256) for v in (i * 10 % 256, i * 20 % 256, 200)])
    assert (read_image(save(tmp_path / "palette.png", flat), "RGB") == [30, 60, 200]).all()


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 40 * 56).reshape(40, 56).astype(np.uint16)
    found = read_image(save(tmp_path / "gray16.png", Image.fromarray(values)), "RGB")[:, :, 0]
    assert np.abs(found - values / 257).max() <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", image, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(read_image(path, "RGB"), expected)
    assert read_image_size(path) == expected.shape[:2]


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
