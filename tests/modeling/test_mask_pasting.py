"""Tests of mask pasting: Detectron2's pixels, the definition pixel by pixel, and bounded memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from golden_detectron2 import FOLDER
from sn2fpn.modeling.roi_heads.mask_pasting import paste_masks, paste_run_lengths


def test_golden_paste() -> None:
    with np.load(FOLDER / "components.npz") as golden:
        shape = tuple(golden["paste_shape"])
        expected = np.unpackbits(golden["paste_masks"])[: math.prod(shape)].reshape(shape).astype(bool)
        probabilities, boxes = torch.from_numpy(golden["paste_probs"]), torch.from_numpy(golden["paste_boxes"])
    assert np.array_equal(paste_masks(probabilities, boxes, shape[1:]), expected)


def by_definition(mask: torch.Tensor, box: list[float], y: int, x: int) -> float:
    """Return the bilinear interpolation between cell centres at the centre of pixel (y, x), 0 outside the mask."""
    side = len(mask)
    v = (y + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
    u = (x + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
    total = 0.0
    for i in (math.floor(v), math.floor(v) + 1):
        for j in (math.floor(u), math.floor(u) + 1):
            if 0 <= i < side and 0 <= j < side:
                total += mask[i, j].item() * (1 - abs(v - i)) * (1 - abs(u - j))
    return total


@pytest.mark.parametrize("threshold", [0.1, 0.4])
@pytest.mark.parametrize(
    "box",
    [
        [3.2, 4.1, 17.9, 11.5],
        [0.0, 0.0, 24.0, 16.0],
        [5.0, 5.0, 5.4, 5.3],
        [-6.0, -3.0, 9.5, 30.0],
        [20.5, 14.2, 24.0, 16.0],
    ],
)
def test_pixels_by_definition(box: list[float], threshold: float) -> None:
    """The boxes include one that is smaller than a pixel and some that reach out of the image.

    Pixels beyond a box reach a threshold below 1/2 where the outermost cells are high enough.
    """
    mask = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(3))
    (found,) = paste_masks(mask, torch.tensor([box]), (16, 24), threshold)
    (bitmap,) = paste_run_lengths(mask, torch.tensor([box]), (16, 24), threshold)
    assert np.array_equal(bitmap, found)
    for y in range(16):
        for x in range(24):
            value = by_definition(mask[0], box, y, x)
            if abs(value - threshold) > 1e-4:
                assert found[y, x].item() == (value >= threshold), (y, x, value)


class _LargestTensor(TorchDispatchMode):
    """A mode that records the bytes of the largest tensor that an operation makes, bitmaps aside."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor) and t.dtype != torch.bool:
                self.bytes = max(self.bytes, t.numel() * t.element_size())
        return out


def test_a_hundred_detections_take_little_memory() -> None:
    """For 1333 x 800 pixels, no tensor but the bitmaps (100 MB) is larger than one float32 image."""
    masks = torch.ones(100, 28, 28)
    boxes = torch.tensor([[0.0, 0.0, 1333.0, 800.0]]).repeat(100, 1)
    with _LargestTensor() as largest:
        pasted = paste_masks(masks, boxes, (800, 1333))
    assert pasted.shape == (100, 800, 1333) and pasted.dtype == torch.bool
    assert 0 < largest.bytes <= 800 * 1333 * 4
    assert pasted.float().mean() > 0.95


def test_nothing_to_paste() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 7)).shape == (0, 5, 7)
    outside = torch.tensor([[50.0, 50.0, 60.0, 60.0]])
    assert not paste_masks(torch.ones(1, 28, 28), outside, (5, 7)).any()
