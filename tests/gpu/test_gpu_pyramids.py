"""Every pyramid on a GPU against the CPU, forward and backward, in both memory layouts and in half precision."""

from __future__ import annotations

import pytest
import torch
from gpu_comparison import HALF, Both, assert_close, moved, with_gradients
from torch import Tensor, nn

from sn2fpn.config import get_cfg
from sn2fpn.pyramids import PYRAMIDS, pyramid_from_backbone_name
from sn2fpn.pyramids.checks import TRUNK
from sn2fpn.structures import ShapeSpec

pytestmark = pytest.mark.gpu

SHAPES = {name: ShapeSpec(channels=2 * shape.channels, stride=shape.stride) for name, shape in TRUNK.items()}
SETTINGS = {name: (name, []) for name in PYRAMIDS} | {
    "pconv deformable": ("pconv", ["MODEL.PCONV.DEFORM", "all", "MODEL.PCONV.NUM", 1]),
    "sni learned": ("sni", ["MODEL.SNI.ALPHA", "learned"]),
}


def pyramid(setting: str) -> nn.Module:
    """Return a pyramid whose offsets of deformable convolutions, which start at 0, are random."""
    torch.manual_seed(0)
    name, overrides = SETTINGS[setting]
    cfg = get_cfg()
    small = ["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.GFPN.INNER_CHANNELS", 32, "MODEL.FPN.IN_FEATURES", list(SHAPES)]
    cfg.merge_from_list([*small, *overrides])
    built = pyramid_from_backbone_name(f"build_sn2_{name}_backbone")(cfg, SHAPES)
    for key, p in built.named_parameters():
        if "offset" in key:
            nn.init.normal_(p, std=0.1)
    return built


def trunk(size: tuple[int, int], layout: torch.memory_format = torch.contiguous_format) -> dict[str, Tensor]:
    """Return random maps of the trunk for images of the given size."""
    generator = torch.Generator().manual_seed(0)
    maps = {}
    for name, shape in SHAPES.items():
        height, width = (-(-side // shape.stride) for side in size)
        x = torch.randn(2, shape.channels, height, width, generator=generator)
        maps[name] = x.to(memory_format=layout).requires_grad_()
    return maps


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("size", [(128, 192), (132, 100)], ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_outputs_and_gradients_equal_the_cpus(
    setting: str, size: tuple[int, int], layout: torch.memory_format, both: Both
) -> None:
    expected, found = both(with_gradients, pyramid(setting), trunk(size, layout))
    assert_close(found, expected, values=1e-3, gradients=1e-2)


@pytest.mark.parametrize("setting", SETTINGS)
def test_channels_last_stays_channels_last(setting: str, both: Both) -> None:
    with both.on_device(), torch.no_grad():
        on_device = moved(pyramid(setting).eval(), both.device)
        outputs = on_device(moved(trunk((128, 192), torch.channels_last), both.device))
    for name, x in outputs.items():
        assert x.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_half_precision_stays_close_and_its_gradients_are_finite(setting: str, dtype: torch.dtype, both: Both) -> None:
    built, maps = moved(pyramid(setting), both.device), moved(trunk((128, 192)), both.device)
    with both.on_device():
        exact = built.eval()(maps)
        with torch.autocast(both.device.type, dtype):
            outputs = built(maps)
        grads = torch.autograd.grad(sum(x.float().square().mean() for x in outputs.values()), list(built.parameters()))
    for name, x in outputs.items():
        assert x.dtype == dtype
        assert (x.float() - exact[name]).norm() <= 0.05 * exact[name].norm(), name
    assert all(g.isfinite().all() for g in grads)
