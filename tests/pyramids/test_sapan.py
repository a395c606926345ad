"""Tests of SA-PAN: the same pyramid built by hand from the layers, counts, and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from golden_modules import count_parameters
from sn2fpn.config import get_cfg
from sn2fpn.layers import ESD1, ESD2, SNI, GSConvE1
from sn2fpn.pyramids import FPN, PAFPN, PYRAMIDS, SAPAN

RESNET50 = (256, 512, 1024, 2048)
LAT, K3 = 984_064, 590_080
DOWNS = {"esd1": ESD1, "esd2": ESD2, "gsconve1": GSConvE1}


def odd_maps() -> dict[str, torch.Tensor]:
    sizes = [(17, 23), (9, 12), (5, 6)]
    return {f"res{i}": torch.randn(2, i + 1, *size) for i, size in enumerate(sizes, 2)}


@pytest.mark.parametrize("variant", ["paper", "openmmlab"])
@pytest.mark.parametrize("down", DOWNS)
def test_is_pafpn_with_sni_and_another_downsampling(down: str, variant: str) -> None:
    pyramid = SAPAN([3, 4, 5], 8, down=down, variant=variant).eval()
    fpn = FPN([3, 4, 5], 8, upsample="sni")
    fpn.load_state_dict({k: v for k, v in pyramid.state_dict().items() if k.startswith("fpn_")})
    maps = odd_maps()
    found, p = pyramid(maps), fpn(maps)
    relu = torch.relu if variant == "paper" else (lambda x: x)
    passed_up = p["p2"]
    for i in (3, 4):
        module = getattr(pyramid, f"pafpn_down{i}")
        assert type(module) is DOWNS[down]
        total = relu(module(passed_up)) + p[f"p{i}"]
        n = relu(getattr(pyramid, f"pafpn_output{i}")(total))
        assert torch.allclose(found[f"p{i}"], n, atol=1e-5)
        passed_up = n if variant == "paper" else total
    assert torch.equal(found["p2"], p["p2"])


def test_conv_and_nearest_is_pafpn() -> None:
    sapan, pafpn = SAPAN([3, 4, 5], 8, down="conv", upsample="nearest"), PAFPN([3, 4, 5], 8)
    sapan.load_state_dict(pafpn.state_dict(), strict=True)
    maps = odd_maps()
    for name, expected in pafpn(maps).items():
        assert torch.equal(sapan(maps)[name], expected)


@pytest.mark.parametrize(("down", "each"), [("esd1", 590_336), ("esd2", 786_944), ("gsconve1", 443_776), ("conv", K3)])
def test_parameter_counts(down: str, each: int) -> None:
    assert count_parameters(SAPAN(RESNET50, down=down)) == LAT + 4 * K3 + 3 * (each + K3)


def test_configuration_reaches_the_norms() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.FPN.NORM", "GN"])
    cfg.merge_from_list(["MODEL.SAPAN.NORM_EPS", 1e-3, "MODEL.SAPAN.NORM_MOMENTUM", 0.03])
    shape = FPN([4, 8, 8], 4).output_shape()
    shape.pop("p5")
    pyramid = PYRAMIDS.get("sapan")(cfg, shape)
    assert isinstance(pyramid.fpn_upsample2, SNI) and pyramid.variant == "paper"
    norm = pyramid.pafpn_down3.dense.norm
    assert isinstance(norm, nn.BatchNorm2d) and (norm.eps, norm.momentum) == (1e-3, 0.03)
    assert isinstance(pyramid.pafpn_output3.norm, nn.GroupNorm)
    cfg.merge_from_list(["MODEL.SAPAN.NORM", "", "MODEL.SAPAN.DOWN", "gsconve1"])
    assert PYRAMIDS.get("sapan")(cfg, shape).pafpn_down4.main.bias is not None


@pytest.mark.parametrize(
    ("option", "key", "words"),
    [
        ({"down": "esd"}, "", "unknown value 'esd'; did you mean 'esd[12]'"),
        ({"variant": "mmlab"}, "", "unknown value 'mmlab'"),
        ({"upsample": "linear"}, "", "unknown value 'linear'"),
        ({"fuse_type": "avg"}, "MODEL.FPN.FUSE_TYPE", "expected 'sum', because the alpha of SNI is the weight"),
        ({"down_norm": "bn"}, "MODEL.SAPAN.NORM", "unknown .*'bn'; did you mean 'BN'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, key: str, words: str) -> None:
    refused("sapan", SAPAN, option, words, key)
