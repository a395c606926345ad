"""Tests of the integrated batch norm against PyTorch's batch norm of the flattened, concatenated pixels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sn2fpn.layers import FrozenBatchNorm2d, integrated_norm_relu

SIZES = [(17, 23), (9, 12), (1, 1)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_joint_statistics(batch: int, layout: torch.memory_format) -> None:
    norm, maps = nn.BatchNorm2d(5), [torch.randn(batch, 5, *s) + i for i, s in enumerate(SIZES)]
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    reference = nn.BatchNorm1d(5)
    reference.load_state_dict(norm.state_dict())
    leaves = [x.clone().requires_grad_() for x in maps]
    pixels = torch.cat([x.flatten(2) for x in leaves], dim=2)
    expected = [y.unflatten(2, s) for y, s in zip(reference(pixels).relu().split([h * w for h, w in SIZES], 2), SIZES)]
    inputs = [x.contiguous(memory_format=layout).requires_grad_() for x in maps]
    found = integrated_norm_relu(inputs, norm)
    weights = [torch.randn_like(y) for y in expected]
    for outputs in (found, expected):
        sum((y * w).sum() for y, w in zip(outputs, weights)).backward()
    for x, y, leaf, y_expected in zip(inputs, found, leaves, expected):
        assert torch.allclose(y, y_expected, atol=1e-5) and torch.allclose(x.grad, leaf.grad, atol=1e-5)
        assert y.is_contiguous(memory_format=layout)  # the memory layout of the maps is kept
    assert torch.allclose(norm.weight.grad, reference.weight.grad, atol=1e-3)
    for name, value in reference.state_dict().items():  # the running statistics take one step, not one per level
        assert torch.allclose(norm.state_dict()[name], value, atol=1e-6), name


def test_evaluation_normalises_each_map_by_itself() -> None:
    norm = nn.BatchNorm2d(5)
    norm(torch.randn(4, 5, 8, 8) * 3 + 1)
    maps = [torch.randn(2, 5, *size) for size in SIZES]
    for fixed in (copy.deepcopy(norm).eval(), FrozenBatchNorm2d.convert_frozen_batchnorm(norm)):
        expected = [norm.eval()(x).relu() for x in maps]
        for y, y_expected in zip(integrated_norm_relu(maps, fixed), expected):
            assert torch.allclose(y, y_expected, atol=1e-6)
    expected = [x.relu() for x in maps]
    assert all(torch.equal(y, e) for y, e in zip(integrated_norm_relu(maps, None), expected))
