"""Tests of the deformable convolution against torchvision's operator and against the plain convolution."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounter
from torchvision.ops import deform_conv2d

from sn2fpn.errors import UserError
from sn2fpn.layers import DeformConv2d


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0)])
@pytest.mark.parametrize(("groups", "modulated"), [(1, False), (2, True)])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_values_and_gradients_are_torchvisions(
    stride: int, padding: int, groups: int, modulated: bool, spread: float
) -> None:
    layer = DeformConv2d(4, 6, 3, stride, padding, offset_groups=groups, modulated=modulated)
    nn.init.normal_(layer.offset.weight, std=spread / 6)
    nn.init.normal_(layer.offset.bias, std=spread)
    x, guide = (torch.randn(2, 4, 11, 8, requires_grad=True) for _ in range(2))
    r = layer.offset(guide)
    offset, mask = r[:, : 18 * groups], r[:, 18 * groups :].sigmoid() if modulated else None
    expected = deform_conv2d(x, offset, layer.weight, layer.bias, stride, padding, mask=mask)
    found = layer(x, guide)
    assert torch.allclose(found, expected, atol=1e-5)
    inputs = [x, guide, *layer.parameters()]
    slope = torch.randn_like(found)
    for a, b in zip(*(torch.autograd.grad(y, inputs, slope, retain_graph=True) for y in (found, expected))):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)
    assert torch.allclose(layer(x), layer(x, x))


def test_fresh_layers_are_plain_convs_in_every_layout_and_precision() -> None:
    x = torch.randn(2, 4, 7, 9)
    plain, halved = DeformConv2d(4, 6), DeformConv2d(4, 6, modulated=True)
    assert torch.allclose(plain(x), plain.plain(x), atol=1e-6)
    expected = F.conv2d(x, halved.weight / 2, halved.bias, padding=1)
    assert torch.allclose(halved(x), expected, atol=1e-6)
    last = x.contiguous(memory_format=torch.channels_last)
    assert halved(last).is_contiguous(memory_format=torch.channels_last) and halved(x).is_contiguous()
    with torch.autocast("cpu", torch.bfloat16):
        found = halved(last.bfloat16())
    assert found.dtype == torch.bfloat16 and found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.float(), expected, atol=0.02)


def test_traced_as_tools_that_count_operations_do() -> None:
    layer, x = DeformConv2d(4, 6, offset_groups=2, modulated=True), torch.randn(1, 4, 7, 9)
    nn.init.normal_(layer.offset.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, and `torch.jit.trace` is deprecated
        traced = torch.jit.trace(layer, x)
    assert torch.allclose(traced(x), layer(x), atol=1e-6)


def test_compiled_for_all_sizes_at_once() -> None:
    """The first graph is that of one size, and the second one serves all others."""
    layer, counter = DeformConv2d(4, 6, modulated=True), CompileCounter()
    torch.compiler.reset()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for size in ((9, 12), (17, 23), (20, 33), (41, 19), (64, 70)):
        x = torch.randn(1, 4, *size)
        assert torch.allclose(compiled(x), layer(x), atol=1e-5)
    assert counter.frame_count == 2


def test_groups_that_do_not_divide() -> None:
    with pytest.raises(UserError, match="offset_groups: expected a divisor of the 8 input channels, found 3"):
        DeformConv2d(8, 8, offset_groups=3)
