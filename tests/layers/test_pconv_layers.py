"""Tests of PConv and SEPC: golden numbers, equations, the deformable form at the start, parameter counts, messages."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden_modules import Case, count_parameters, load_case
from sn2fpn.errors import UserError
from sn2fpn.layers import SEPC, DeformConv2d, PConv

TAPS = {tap: tap for tap in ("same", "from_finer", "from_coarser", "ibn")}


def maps_of(case: Case) -> list[torch.Tensor]:
    return [case.inputs[f"l{i}"] for i in range(case.hyper["levels"])]


@pytest.mark.parametrize("name", ["pconv_plain", "pconv_ibn_eval", "pconv_ibn_train", "pconv_deform"])
def test_golden_pconv(name: str) -> None:
    case = load_case(name)
    norm = "BN" if case.hyper["ibn"] else ""
    module = PConv(case.hyper["width"], norm=norm, deform=case.hyper["deform"]).train(name.endswith("train"))
    case.load_into(module, TAPS | {f"{tap}_offset": f"{tap}.offset" for tap in TAPS})
    case.tolerance = 1e-5  # the recorded tolerance is wider for the deformable case
    found = {f"l{i}": y for i, y in enumerate(module(maps_of(case)))}
    if name.endswith("train"):
        found |= {f"running_{s}": getattr(module.ibn, f"running_{s}") for s in ("mean", "var")}
    case.check(found)


@pytest.mark.parametrize("name", ["sepc_ibn_eval", "sepc_no_ibn"])
def test_golden_sepc(name: str) -> None:
    case = load_case(name)
    num = case.hyper["pconv_num"]
    module = SEPC(case.hyper["width"], num=num, norm="BN" if case.hyper["ibn"] else "").eval()
    names = {f"pconv{i}_{tap}": f"pconv.{i}.{tap}" for i in range(num) for tap in TAPS}
    case.load_into(module, names | {f"{b}_{part}": f"{b}.{part}" for b in ("cls", "loc") for part in ("conv", "ibn")})
    branches = zip(("cls", "loc"), module(maps_of(case)))
    case.check({f"{branch}_l{i}": y for branch, ys in branches for i, y in enumerate(ys)})


@pytest.mark.parametrize("upsample", ["nearest", "sni", "bilinear", "bilinear_corners"])
def test_equation_on_odd_sizes(upsample: str) -> None:
    module = PConv(3, norm="", upsample=upsample)
    w = module.state_dict()
    x = [torch.randn(2, 3, *size) for size in ((7, 10), (4, 5), (2, 3))]
    same, finer, coarser = (
        [F.conv2d(m, w[f"{tap}.weight"], w[f"{tap}.bias"], padding=1, stride=stride) for m in x]
        for tap, stride in (("same", 1), ("from_finer", 2), ("from_coarser", 1))
    )
    for level, y in enumerate(module(x)):
        expected = same[level]
        if level > 0:
            expected = expected + finer[level - 1]
        if level < 2:
            size = x[level].shape[2:]
            corners = {"bilinear": False, "bilinear_corners": True}.get(upsample)
            mode = "nearest" if corners is None else "bilinear"
            up = F.interpolate(coarser[level + 1], size, mode=mode, align_corners=corners)
            ratio = x[level + 1][0, 0].numel() / x[level][0, 0].numel()
            expected = expected + up * (ratio if upsample == "sni" else 1)
        assert torch.allclose(y, expected.relu(), atol=1e-6)


def test_a_learned_upsampling_is_shared_by_the_levels_and_learns() -> None:
    module = PConv(4, norm="", upsample="dysample")
    assert [name for name, _ in module.named_parameters() if "upsample" in name] == [
        "upsample.offset.weight",
        "upsample.offset.bias",
    ]
    outputs = module([torch.randn(1, 4, *size) for size in ((7, 10), (4, 5), (2, 3))])
    sum(y.square().sum() for y in outputs).backward()
    assert all(p.grad.any() for p in module.parameters())


def test_fresh_deformable_modules_are_the_plain_ones_and_the_finest_level_stays_plain() -> None:
    maps = [torch.randn(1, 8, 64 >> i, 96 >> i) for i in range(3)]
    plain = SEPC(8, num=1)
    for deform in ("lite", "all"):
        deformable = SEPC(8, num=1, deform=deform)
        report = deformable.load_state_dict(plain.state_dict(), strict=False)
        assert report.missing_keys and all(".offset." in key for key in report.missing_keys)
        for found, expected in zip(deformable(maps), plain(maps)):
            assert all(torch.allclose(y, e, atol=1e-4) for y, e in zip(found, expected))
    module = PConv(8, norm="", deform=True)
    before = [y.clone() for y in module(maps)]
    for conv in module.modules():
        if isinstance(conv, DeformConv2d):
            nn.init.normal_(conv.offset.bias)
    assert [torch.equal(y, b) for y, b in zip(module(maps), before)] == [True, False, False]


def test_parameters() -> None:
    assert count_parameters(PConv(256)) == 1_770_752
    assert count_parameters(PConv(256, norm="")) == 1_770_240
    assert count_parameters(PConv(256, norm="", deform=True)) == 1_770_240 + 124_470
    assert count_parameters(SEPC()) == 8_264_192
    module = PConv(64, deform=True)
    assert module.same.weight.std().item() == pytest.approx(0.01, rel=0.03)
    zero = ("bias", "offset.weight", "offset.bias")
    assert not any(p.any() for name, p in module.named_parameters() if name.endswith(zero))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"sizes halve, rounded up; found \[\(8, 8\), \(3, 4\)\]"):
        PConv(4)([torch.ones(1, 4, 8, 8), torch.ones(1, 4, 3, 4)])
    with pytest.raises(UserError, match="deform: unknown value 'light'; did you mean 'lite'"):
        SEPC(4, deform="light")
    with pytest.raises(UserError, match="norm: unknown value 'GN'"):  # it would normalise each level by itself
        PConv(4, norm="GN")
    with pytest.raises(UserError, match="upsample: unknown value 'bicubic'"):
        PConv(4, upsample="bicubic")
