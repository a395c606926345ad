"""Layers on a GPU against the CPU: top-down steps, deformable convolution, and norms of one map and of all levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_comparison import HALF, Both, assert_close, moved, with_gradients
from torch import Tensor, nn

from sn2fpn.layers import ESD1, ESD2, DeformConv2d, get_norm, get_upsample, integrated_norm_relu
from sn2fpn.layers.upsample.kinds import _KINDS

pytestmark = pytest.mark.gpu
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])


class Step(nn.Module):
    """A top-down step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.upsample = get_upsample(kind, 32)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.upsample.add(fine, coarse)


class Joint(nn.Module):
    """The integrated norm of several maps."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.norm = get_norm(norm, 32)

    def forward(self, *levels: Tensor) -> list[Tensor]:
        out = integrated_norm_relu([2 * x for x in levels], self.norm)
        assert [y.stride() for y in out] == [x.stride() for x in levels]
        return out


def randomised(module: nn.Module, std: float = 0.1) -> nn.Module:
    """Fill the parameters of a module at random, so that weights that start at 0 take part."""
    for p in module.parameters():
        nn.init.normal_(p, mean=1.0 if p.dim() == 0 else 0.0, std=std)
    return module


def maps(*shapes: tuple[int, ...], layout: torch.memory_format) -> list[Tensor]:
    """Return random maps of which gradients are asked."""
    generator = torch.Generator().manual_seed(0)
    drawn = [2 * torch.randn(shape, generator=generator) + 0.5 for shape in shapes]
    return [x.to(memory_format=layout).requires_grad_() for x in drawn]


@LAYOUTS
@pytest.mark.parametrize("size", [(16, 24), (15, 24), (15, 23)], ids=str)
@pytest.mark.parametrize("kind", [*_KINDS, "sni:0.5"])
def test_steps_of_every_upsampling(kind: str, size: tuple[int, int], layout: torch.memory_format, both: Both) -> None:
    """With even sides, SNI's step adds squares of fine pixels, with odd ones columns."""
    expected, found = both(with_gradients, randomised(Step(kind)), *maps((2, 32, *size), (2, 32, 8, 12), layout=layout))
    assert_close(found, expected, values=1e-4, gradients=1e-3)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("kind", [*_KINDS, "sni:0.5"])
def test_steps_under_autocast_stay_in_half_precision(kind: str, dtype: torch.dtype, both: Both) -> None:
    """Autocast on a GPU computes some operators, such as interpolation, in float32."""
    step = moved(randomised(Step(kind)), both.device)
    fine, coarse = moved(maps((2, 32, 15, 23), (2, 32, 8, 12), layout=torch.channels_last), both.device)
    with both.on_device(), torch.no_grad():
        exact = step(fine, coarse)
        with torch.autocast(both.device.type, dtype):
            found, alone = step(fine.to(dtype), coarse.to(dtype)), step.upsample(coarse.to(dtype), (15, 23))
    assert found.dtype == alone.dtype == dtype
    assert (found.float() - exact).norm() <= 0.03 * exact.norm()


@LAYOUTS
@pytest.mark.parametrize("size", [(16, 24), (33, 25)], ids=str)
@pytest.mark.parametrize("layer", [ESD1, ESD2])
def test_esd(layer: type[nn.Module], size: tuple[int, int], layout: torch.memory_format, both: Both) -> None:
    expected, found = both(with_gradients, layer(32, 64), *maps((2, 32, *size), layout=layout))
    assert_close(found, expected, values=1e-4, gradients=1e-3)


@LAYOUTS
@pytest.mark.parametrize(("groups", "modulated", "stride"), [(1, False, 1), (2, True, 1), (2, True, 2)])
def test_deformable_convolution(
    groups: int, modulated: bool, stride: int, layout: torch.memory_format, both: Both
) -> None:
    conv = randomised(DeformConv2d(8, 6, 3, stride, offset_groups=groups, modulated=modulated))
    expected, found = both(with_gradients, conv, *maps((2, 8, 17, 22), (2, 8, 17, 22), layout=layout))
    assert_close(found, expected, values=1e-4, gradients=1e-3)


def with_buffers(module: nn.Module, *levels: Tensor) -> list[dict[str, Any]]:
    """Return the results of `with_gradients`, and the buffers afterwards."""
    return [with_gradients(module, *levels), {k: v.float() for k, v in module.named_buffers()}]


@LAYOUTS
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", ["BN", "SyncBN", "FrozenBN", "GN"])
def test_norms_and_their_statistics(name: str, training: bool, layout: torch.memory_format, both: Both) -> None:
    norm = randomised(get_norm(name, 64)).train(training)
    (expected, buffers), (found, found_buffers) = both(with_buffers, norm, *maps((2, 64, 24, 31), layout=layout))
    assert_close(found, expected, values=1e-4, gradients=1e-3)
    for key, value in buffers.items():
        torch.testing.assert_close(found_buffers[key], value, rtol=1e-4, atol=1e-5)


@LAYOUTS
@pytest.mark.parametrize("norm", ["BN", "SyncBN", ""])
def test_integrated_norm_of_all_levels(norm: str, layout: torch.memory_format, both: Both) -> None:
    levels = maps((2, 32, 16, 20), (2, 32, 8, 10), (2, 32, 4, 5), layout=layout)
    (expected, buffers), (found, found_buffers) = both(with_buffers, Joint(norm), *levels)
    assert_close(found, expected, values=1e-4, gradients=1e-3)
    for key, value in buffers.items():
        torch.testing.assert_close(found_buffers[key], value, rtol=1e-4, atol=1e-5)
