"""Upsampling by name against torch's own interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sn2fpn.errors import UserError
from sn2fpn.layers import UPSAMPLINGS, upsample, upsample_add

EXPECTED = {
    "nearest": lambda x, size: F.interpolate(x, size, mode="nearest"),
    "sni": lambda x, size: F.interpolate(x, size, mode="nearest") * (x[0, 0].numel() / (size[0] * size[1])),
    "bilinear": lambda x, size: F.interpolate(x, size, mode="bilinear", align_corners=False),
    "bilinear_corners": lambda x, size: F.interpolate(x, size, mode="bilinear", align_corners=True),
}


@pytest.mark.parametrize("mode", UPSAMPLINGS)
@pytest.mark.parametrize("size", [(10, 14), (9, 13), (5, 14), (20, 20)])
def test_modes(mode: str, size: tuple[int, int]) -> None:
    x, fine = torch.randn(2, 3, 5, 7), torch.randn(2, 3, *size)
    expected = EXPECTED[mode](x, size)
    assert torch.allclose(upsample(x, size, mode), expected, atol=1e-6)
    assert torch.allclose(upsample_add(fine, x, mode), fine + expected, atol=1e-6)


@pytest.mark.parametrize("mode", UPSAMPLINGS)
def test_equal_sizes_are_left_alone(mode: str) -> None:
    x = torch.randn(1, 2, 4, 6)
    assert upsample(x, (4, 6), mode) is x


def test_unknown_mode() -> None:
    for call in (
        lambda: upsample(torch.ones(1, 1, 2, 2), (4, 4), "nearst"),
        lambda: upsample_add(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2), "nearst"),
    ):
        with pytest.raises(UserError, match="unknown upsampling 'nearst'; did you mean 'nearest'"):
            call()
