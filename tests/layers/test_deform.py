"""Deformable conv against its definition, read pixel by pixel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sn2fpn.errors import UserError
from sn2fpn.layers import DeformConv2d


def by_definition(layer: DeformConv2d, x: Tensor, guide: Tensor, groups: int) -> Tensor:
    """sum_k w_k m_k(p) x(s p - pad + k + d_k(p)); x is read by grid_sample at pixel coordinates, 0 outside."""
    w, r = layer.weight, layer.offset(guide)
    (n, _, rows, columns), (height, width) = r.shape, x.shape[2:]
    stride, pad = layer.stride[0], layer.padding[0]
    y0, x0 = torch.meshgrid(torch.arange(rows) * stride - pad, torch.arange(columns) * stride - pad, indexing="ij")
    out = layer.bias.view(1, -1, 1, 1).expand(n, -1, rows, columns)
    per = x.shape[1] // groups
    for group in range(groups):
        channels = slice(group * per, (group + 1) * per)
        for tap in range(9):
            dy, dx = r[:, 18 * group + 2 * tap], r[:, 18 * group + 2 * tap + 1]
            at = torch.stack((x0 + tap % 3 + dx, y0 + tap // 3 + dy), dim=-1)
            at = (2 * at + 1) / torch.tensor([width, height]) - 1
            read = F.grid_sample(x[:, channels], at, padding_mode="zeros", align_corners=False)
            if r.shape[1] == 27 * groups:
                read = read * r[:, 18 * groups + 9 * group + tap].sigmoid().unsqueeze(1)
            out = out + F.conv2d(read, w[:, channels, tap // 3, tap % 3, None, None])
    return out


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0)])
@pytest.mark.parametrize(("groups", "modulated"), [(1, False), (2, True)])
def test_definition(stride: int, padding: int, groups: int, modulated: bool) -> None:
    layer = DeformConv2d(4, 6, 3, stride, padding, offset_groups=groups, modulated=modulated)
    for p in layer.offset.parameters():
        nn.init.normal_(p, std=0.4)
    x, guide = torch.randn(2, 4, 7, 9), torch.randn(2, 4, 7, 9)
    assert torch.allclose(layer(x, guide), by_definition(layer, x, guide, groups), atol=1e-5)
    assert torch.allclose(layer(x), by_definition(layer, x, x, groups), atol=1e-5)


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


def test_groups_that_do_not_divide() -> None:
    with pytest.raises(UserError, match="3 offset groups do not divide 8 channels"):
        DeformConv2d(8, 8, offset_groups=3)
