"""Tests of GSConv, GSConvE-1, GSConvE-2 and C3: golden numbers, channel order, parameter counts, options."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden_modules import count_parameters, load_case
from sn2fpn.layers import C3, GSConv, GSConvE1, GSConvE2, kaiming_normal_per_group

NAMES = {
    "main": "main",
    "aux_dense": "aux_dense",
    "aux_depthwise": "aux_depthwise",
    "dw5": "depthwise",
    "dw9": "depthwise9",
    "dw13": "depthwise13",
    "dw17": "depthwise17",
}


@pytest.mark.parametrize(
    ("name", "cls"),
    [("gsconv_k3s1", GSConv), ("gsconve1_k3s1", GSConvE1), ("gsconve1_k3s2", GSConvE1), ("gsconve2_k3s1", GSConvE2)],
)
def test_golden(name: str, cls: type) -> None:
    case = load_case(name)
    h = case.hyper
    module = cls(h["c_in"], h["c_out"], h["k"], h["stride"]).eval()
    case.load_into(module, NAMES)
    case.check({"y": module(case.inputs["x"])})


def test_channel_order() -> None:
    x = torch.randn(2, 6, 7, 5)
    base, e1, e2 = (cls(6, 8).eval() for cls in (GSConv, GSConvE1, GSConvE2))
    x1 = base.main(x)
    y = base(x)
    assert torch.equal(y[:, 0::2], x1)
    assert torch.equal(y[:, 1::2], base.depthwise(x1))
    x1 = e1.main(x)
    y = e1(x)
    aux = F.conv2d(x1, e1.aux_dense.weight, padding=1)
    aux = F.conv2d(aux, e1.aux_depthwise.weight, padding=1, groups=4)
    assert torch.equal(y[:, 0::2], x1)
    assert torch.allclose(y[:, 1::2], 0.5 * aux * (1 + torch.erf(aux / math.sqrt(2))), atol=1e-6)
    x1 = e2.main(x)
    parts = [x1, e2.depthwise13(x1), e2.depthwise9(x1), e2.depthwise17(x1)]
    y = e2(x)  # the order is x1[0], x3[0], x1[1], x3[1], x2[0], x4[0], x2[1], x4[1]
    for i, (part, channel) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (2, 1), (3, 1)]):
        assert torch.equal(y[:, i], parts[part][:, channel])


def test_parameter_counts() -> None:
    assert count_parameters(GSConv(256, 256)) == 298_624
    assert count_parameters(GSConvE1(256, 256)) == 443_776
    assert count_parameters(GSConvE1(256, 256, aux_kernel=1)) == 443_776 - 8 * 128**2
    assert count_parameters(GSConvE2(256, 256)) == 182_464
    assert [count_parameters(C3(256, n)) for n in (1, 2, 3)] == [427_520, 722_944, 1_018_368]


@pytest.mark.parametrize("make", [GSConv, GSConvE1, GSConvE2])
@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN", ""])
def test_norms_strides_and_gradients(make: type, norm: str) -> None:
    module = make(6, 128, stride=2, norm=norm)
    assert (module.main.bias is not None) == (norm == "")
    y = module(torch.randn(2, 6, 17, 23))
    assert y.shape == (2, 128, 9, 12)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_initialisation_counts_fan_out_per_group() -> None:
    depthwise = nn.Conv2d(256, 256, 3, groups=256)
    kaiming_normal_per_group(depthwise)
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert torch.equal(depthwise.bias, torch.zeros(256))
    aux = GSConvE1(64, 64).aux_depthwise
    assert aux.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.15)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GSConv(4, 7), "out_channels: expected a multiple of 2, found 7"),
        (lambda: GSConvE1(4, 7), "out_channels: expected a multiple of 2, found 7"),
        (lambda: GSConvE2(4, 6), "out_channels: expected a multiple of 4, found 6"),
        (lambda: GSConvE1(4, 8, aux_kernel=2), "aux_kernel: expected an odd number of at least 1, found 2"),
        (lambda: C3(7), "channels: expected an even number, found 7"),
        (lambda: GSConv(4, 8, activation="slu"), "activation: .*'slu'; did you mean 'silu'"),
    ],
)
def test_mistakes_are_named(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        make()
