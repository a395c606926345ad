"""Tests of the photometric distortion and of the seeding of the generators that other libraries draw from."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sn2fpn.data.mapper import DatasetMapper
from sn2fpn.data.photometric import PhotometricDistortion
from sn2fpn.data.seeding import seeded
from sn2fpn.errors import ArgumentError
from sn2fpn.structures import BoxMode


@pytest.fixture
def record(tmp_path: Path) -> dict:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    box = {"bbox": [3.0, 4.0, 30.0, 35.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 2}
    return {"file_name": str(tmp_path / "1.png"), "height": 40, "width": 60, "annotations": [box]}


def _planes(record: dict, photometric: PhotometricDistortion | None, seed: int = 0, form: str = "RGB") -> np.ndarray:
    found = DatasetMapper([], form, photometric=photometric)(record, np.random.default_rng(seed))
    assert found["instances"].gt_boxes.tensor.tolist() == [[3, 4, 30, 35]]
    return found["image"].numpy()


def test_brightness_is_a_factor_and_the_channels_are_permuted(record: dict) -> None:
    """With the probability 1 all changes happen, of which three are made harmless here."""
    one = (1.0, 1.0)
    found = _planes(record, PhotometricDistortion((0.5, 0.5), one, one, (0.0, 0.0), prob=1.0))
    before = np.asarray(Image.open(record["file_name"])).transpose(2, 0, 1)
    for plane in found:
        assert min(np.abs(plane - 0.5 * other).max() for other in before) <= 4  # HSV and back rounds
    same = PhotometricDistortion(prob=0.0)
    assert np.array_equal(_planes(record, same), before)
    assert np.array_equal(_planes(record, same, form="BGR"), before[::-1])


def test_colours_do_not_depend_on_the_order_of_the_channels(record: dict) -> None:
    distortion = PhotometricDistortion(prob=1.0)
    rgb, bgr = (_planes(record, distortion, 5, form) for form in ("RGB", "BGR"))
    assert np.array_equal(rgb, bgr[::-1])
    assert np.array_equal(rgb, _planes(record, distortion, 5)) and not np.array_equal(
        rgb, _planes(record, distortion, 6)
    )
    assert _planes(record, distortion, 5, "L").shape == (1, 40, 60)


def test_other_transforms_of_torchvision_take_its_place(record: dict) -> None:
    gray = _planes(record, v2.Grayscale(3))
    assert np.array_equal(gray[0], gray[1])
    with pytest.raises(
        ArgumentError, match=r"^photometric: expected an image of mode RGB and size \(60, 40\) in retur"
    ):
        _planes(record, v2.Resize((20, 20)))


def test_the_global_generators_go_on_as_if_nothing_had_been_drawn() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first, then = draw(), draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert draw() == first
    inside = []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), seeded(np.random.default_rng(3)) as seed:
            inside.append((seed, *draw()))
            raise ZeroDivisionError
    assert inside[0] == inside[1] and inside[0][1:] != first
    assert draw() == then
