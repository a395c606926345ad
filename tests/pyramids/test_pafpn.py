"""Tests of PAFPN: the golden of the raw-sum variant, the equations of both variants, and FPN's weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from golden_modules import count_parameters, load_case
from sn2fpn.layers import ConvNormAct
from sn2fpn.pyramids import FPN, PAFPN

RESNET50 = (256, 512, 1024, 2048)
SIZES = [(17, 23), (9, 12), (5, 6), (3, 3)]


def odd_maps() -> dict[str, torch.Tensor]:
    return {f"res{i}": torch.randn(2, i + 1, *size) for i, size in enumerate(SIZES, 2)}


def test_golden() -> None:
    case = load_case("pafpn")
    pyramid = PAFPN(case.hyper["in_channels"], case.hyper["width"], variant="openmmlab")
    names = {f"{kind}{i}": f"fpn_{kind}{i}" for kind in ("lateral", "output") for i in (2, 3, 4, 5)}
    names |= {f"down{i - 1}to{i}": f"pafpn_down{i}" for i in (3, 4, 5)}
    case.load_into(pyramid, names | {f"pa_output{i}": f"pafpn_output{i}" for i in (3, 4, 5)})
    case.check(pyramid({f"res{i}": case.inputs[f"c{i}"] for i in (2, 3, 4, 5)}))


@pytest.mark.parametrize("variant", ["paper", "openmmlab"])
@pytest.mark.parametrize("upsample", ["nearest", "sni"])
def test_matches_the_equations_on_odd_sizes(variant: str, upsample: str) -> None:
    pyramid = PAFPN([3, 4, 5, 6], 8, variant=variant, upsample=upsample)
    fpn = FPN([3, 4, 5, 6], 8, upsample=upsample)
    fpn.load_state_dict({k: v for k, v in pyramid.state_dict().items() if k.startswith("fpn_")})
    maps = odd_maps()
    found, p, w = pyramid(maps), fpn(maps), pyramid.state_dict()
    passed_up = p["p2"]
    assert torch.equal(found["p2"], p["p2"])
    for i in (3, 4, 5):
        down = F.conv2d(passed_up, w[f"pafpn_down{i}.weight"], w[f"pafpn_down{i}.bias"], stride=2, padding=1)
        total = (down.clamp(min=0) if variant == "paper" else down) + p[f"p{i}"]
        n = F.conv2d(total, w[f"pafpn_output{i}.weight"], w[f"pafpn_output{i}.bias"], padding=1)
        n = n.clamp(min=0) if variant == "paper" else n
        assert torch.allclose(found[f"p{i}"], n, atol=1e-5)
        passed_up = n if variant == "paper" else total
    assert torch.equal(found["p6"], found["p5"][:, :, ::2, ::2])


def test_each_output_sees_every_level() -> None:
    pyramid = PAFPN([4, 4, 4, 4], 8)
    maps = {f"res{i}": torch.randn(1, 4, 128 >> i, 128 >> i, requires_grad=True) for i in (2, 3, 4, 5)}
    for name, p in pyramid(maps).items():
        grads = torch.autograd.grad(p.square().sum(), list(maps.values()), retain_graph=True)
        assert all(g.any() for g in grads), name


@pytest.mark.parametrize("variant", ["paper", "openmmlab"])
def test_a_step_down_of_ones_own_may_end_in_a_relu(variant: str) -> None:
    make_down = partial(ConvNormAct, 8, 8, 3, stride=2, activation="relu")
    pyramid = PAFPN([4, 4, 4, 4], 8, variant=variant, make_down=make_down)
    maps = {f"res{i}": torch.randn(1, 4, 128 >> i, 128 >> i) for i in (2, 3, 4, 5)}
    sum(p.square().sum() for p in pyramid(maps).values()).backward()
    assert all(p.grad.any() for p in pyramid.parameters())


def test_parameters() -> None:
    for variant in ("paper", "openmmlab"):
        assert count_parameters(PAFPN(RESNET50, variant=variant)) == 6_884_864
    pyramid = PAFPN([4, 6, 8], 16)
    fpn = FPN([4, 6, 8], 16)
    names = {f"pafpn_{part}{i}.{p}" for part in ("down", "output") for i in (3, 4) for p in ("weight", "bias")}
    assert set(pyramid.state_dict()) - set(fpn.state_dict()) == names
    report = pyramid.load_state_dict(fpn.state_dict(), strict=False)
    assert set(report.missing_keys) == names and not report.unexpected_keys
    bound = (3 / (9 * 16)) ** 0.5  # Kaiming-uniform with a = 1, as in FPN
    assert bound * 0.95 < pyramid.pafpn_down3.weight.abs().max().item() <= bound
    assert not pyramid.pafpn_output4.bias.any()
    with_norm = PAFPN([4, 6], 32, norm="GN")
    assert with_norm.pafpn_down3.bias is None and with_norm.pafpn_down3.norm is not None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"variant": "papr"}, "unknown value 'papr'; did you mean 'paper'"),
        ({"upsample": "snii"}, "unknown value 'snii'; did you mean 'sni'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, words: str) -> None:
    refused("pafpn", PAFPN, option, words)
