"""Test box offsets: golden numbers, the way there and back, the clamp, and precision."""

from __future__ import annotations

import math

import pytest
import torch

from golden_detectron2 import max_error, numbers
from sn2fpn.modeling.box_coding import SCALE_CLAMP, BoxCoder


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_golden(weights: tuple[float, ...]) -> None:
    golden = numbers("components")
    name = "_".join(f"{w:g}" for w in weights) if weights[0] > 1 else "1111"
    coder = BoxCoder(weights)
    source, target, deltas = (torch.from_numpy(golden[k]) for k in ("src", "tgt", "deltas_in"))
    assert golden["scale_clamp"] == SCALE_CLAMP
    assert max_error(coder.encode(source, target), golden[f"get_deltas_{name}"]) < 1e-6
    boxes = coder.decode(deltas.view(-1, 2, 4), source[:, None])
    assert max_error(boxes.flatten(1), golden[f"apply_deltas_{name}"]) < 1e-4  # boxes of up to 10,000 pixels


def test_decode_inverts_encode() -> None:
    generator = torch.Generator().manual_seed(0)
    xy, wh = torch.rand(2, 50, 2, generator=generator) * 300, torch.rand(2, 50, 2, generator=generator) * 100 + 5
    source, target = torch.cat([xy, xy + wh], dim=-1)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(coder.decode(coder.encode(source, target), source), target, rtol=1e-5, atol=1e-3)


def test_decode_limits_growth_and_computes_in_float32() -> None:
    box = torch.tensor([[10.0, 20.0, 26.0, 36.0]])
    grown = BoxCoder().decode(torch.tensor([[0.0, 0.0, 50.0, -50.0]], dtype=torch.bfloat16), box)
    assert grown.dtype == torch.float32
    torch.testing.assert_close(grown, torch.tensor([[18 - 500.0, 28.0, 18 + 500.0, 28.0]]))
    assert math.isclose(math.exp(SCALE_CLAMP) * 16, 1000)
