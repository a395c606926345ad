"""Tests of the weight initialisation: bitwise against fvcore's, and against the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from sn2fpn import layers

_LAYERS = [
    lambda: nn.Conv2d(6, 8, 3),
    lambda: nn.Conv2d(6, 8, 3, groups=2, bias=False),
    lambda: nn.Linear(20, 10),
    lambda: nn.ConvTranspose2d(6, 8, 2),
]


@pytest.mark.parametrize("make", _LAYERS)
@pytest.mark.parametrize("name", ["c2_msra_fill", "c2_xavier_fill"])
def test_fills_as_fvcore_does_bit_by_bit(name: str, make: Callable[[], nn.Module]) -> None:
    theirs = pytest.importorskip("fvcore.nn.weight_init", reason="compares with fvcore, which is not installed")
    found = []
    for module in (layers, theirs):
        torch.manual_seed(3)
        layer = make()
        getattr(module, name)(layer)
        found.append([p.detach() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_fills_have_the_spread_of_the_formulas() -> None:
    layer = nn.Conv2d(64, 128, 3)
    layers.c2_msra_fill(layer)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.01)
    assert not layer.bias.any()
    nn.init.ones_(layer.bias)
    layers.c2_xavier_fill(layer)
    bound = math.sqrt(3 / (9 * 64))
    assert 0.999 * bound < layer.weight.abs().max().item() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not layer.bias.any()
