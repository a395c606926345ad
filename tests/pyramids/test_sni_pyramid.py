"""Tests of SNI-FPN: the goldens of both modes, the equations under every option, and FPN's weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden_modules import count_parameters, load_case
from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.modeling.trunk import make_resnet
from sn2fpn.pyramids import FPN, PYRAMIDS, SNIFPN

RESNET50 = (256, 512, 1024, 2048)
LATERALS = {f"lateral{i}": f"fpn_lateral{i}" for i in (2, 3, 4, 5)}


def trunk_maps(case) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    return {f"res{i}": case.inputs[f"c{i}"] for i in (2, 3, 4, 5)}


def test_golden_soft_nearest() -> None:
    case = load_case("sni_fpn")
    pyramid = SNIFPN(case.hyper["in_channels"], case.hyper["width"])
    case.load_into(pyramid, LATERALS | {f"output{i}": f"fpn_output{i}" for i in (2, 3, 4, 5)})
    case.check(pyramid(trunk_maps(case)))


@pytest.mark.parametrize("name", ["sn2fpn_rcnn_even", "sn2fpn_rcnn_odd"])
def test_golden_authors_rcnn(name: str) -> None:
    case = load_case(name)
    pyramid = SNIFPN(case.hyper["in_channels"], case.hyper["width"], mode="authors_rcnn")
    case.load_into(pyramid, LATERALS | {f"smooth{i}": f"fpn_output{i}" for i in (2, 3, 4)})
    case.check(pyramid(trunk_maps(case)))


def test_the_authors_mode_fills_the_convolutions_of_the_pyramid_alone() -> None:
    trunk = make_resnet(18)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    pyramid = SNIFPN(bottom_up=trunk, out_channels=8, mode="authors_rcnn")
    assert all(torch.equal(value, before[name]) for name, value in pyramid.bottom_up.state_dict().items())
    assert pyramid.fpn_lateral5.weight.std().item() == pytest.approx(0.01, rel=0.1)
    pyramid.add_p6_p7()
    assert list(dict(pyramid.named_children()))[-1] == "bottom_up"


@pytest.mark.parametrize("alpha", ["area", 0.7])
@pytest.mark.parametrize("interp", ["nearest", "bilinear"])
@pytest.mark.parametrize("order", ["pass_sum", "pass_smoothed"])
def test_options_match_their_equations(alpha: float | str, interp: str, order: str) -> None:
    pyramid = SNIFPN([3, 4, 5], 6, alpha=alpha, interp=interp, order=order)
    w = pyramid.state_dict()
    c = {f"res{i}": torch.randn(2, i + 1, *size) for i, size in [(2, (17, 23)), (3, (9, 12)), (4, (5, 6))]}
    outputs = pyramid(c)
    above = None
    for i in (4, 3, 2):
        t = F.conv2d(c[f"res{i}"], w[f"fpn_lateral{i}.weight"], w[f"fpn_lateral{i}.bias"])
        if above is not None:
            ratio = above[0, 0].numel() / t[0, 0].numel()
            t = t + (ratio if alpha == "area" else alpha) * F.interpolate(above, size=t.shape[2:], mode=interp)
        p = F.conv2d(t, w[f"fpn_output{i}.weight"], w[f"fpn_output{i}.bias"], padding=1)
        assert torch.allclose(outputs[f"p{i}"], p, atol=1e-5)
        above = p if order == "pass_smoothed" else t


def test_fpn_can_represent_sni() -> None:
    """The page of SNI says so: the factors on the way down can be moved into the convolutions before and after it."""
    sni, fpn = SNIFPN([4, 5, 6, 7], 6), FPN([4, 5, 6, 7], 6)
    weights = sni.state_dict()
    for level in (2, 3, 4, 5):
        factor = 0.25 ** (level - 2)
        for part in ("weight", "bias"):
            weights[f"fpn_lateral{level}.{part}"] = factor * weights[f"fpn_lateral{level}.{part}"]
        weights[f"fpn_output{level}.weight"] = weights[f"fpn_output{level}.weight"] / factor
    fpn.load_state_dict(weights)
    maps = {f"res{i}": torch.randn(2, i + 2, 128 >> i, 96 >> i) for i in (2, 3, 4, 5)}
    expected, found = sni(maps), fpn(maps)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    with torch.no_grad():
        assert not torch.allclose(FPN([4, 5, 6, 7], 6)(maps)["p2"], expected["p2"])


def test_alpha_compounds_on_the_way_down() -> None:
    pyramid = SNIFPN([4, 4, 4, 4], 4)
    maps = {f"res{i}": torch.zeros(1, 4, 64 >> i, 64 >> i) for i in (2, 3, 4, 5)}
    maps["res5"] += 1.0
    seen: list[Tensor] = []
    pyramid.fpn_output2.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    pyramid(maps)
    top = pyramid.fpn_lateral5(maps["res5"])
    assert torch.allclose(seen[0][..., 0, 0], top[..., 0, 0] / 64)


def test_fpn_and_sni_exchange_state_dicts_and_agree_at_alpha_one() -> None:
    fpn, sni = FPN([8, 12, 16, 24], 16), SNIFPN([8, 12, 16, 24], 16, alpha=1.0)
    sni.load_state_dict(fpn.state_dict(), strict=True)
    maps = {f"res{i}": torch.randn(1, c, 131 >> i, 96 >> i) for i, c in enumerate((8, 12, 16, 24), 2)}
    for name, expected in fpn(maps).items():
        assert torch.equal(sni(maps)[name], expected)
    fpn.load_state_dict(sni.state_dict(), strict=True)


@pytest.mark.parametrize("interp", ["nearest", "bilinear"])
@pytest.mark.parametrize("order", ["pass_sum", "pass_smoothed"])
def test_learned_alpha_is_a_scalar_per_step(interp: str, order: str) -> None:
    torch.manual_seed(0)
    learned = SNIFPN([3, 4, 5], 6, alpha="learned", interp=interp, order=order)
    c = {f"res{i}": torch.randn(2, i + 1, *size) for i, size in [(2, (17, 23)), (3, (9, 12)), (4, (5, 6))]}
    fixed = SNIFPN([3, 4, 5], 6, alpha=0.25, interp=interp, order=order)
    report = learned.load_state_dict(fixed.state_dict(), strict=False)  # as from an FPN checkpoint
    assert report.missing_keys == ["sni_alpha2", "sni_alpha3"] and not report.unexpected_keys
    for name, expected in fixed(c).items():
        assert torch.allclose(learned(c)[name], expected, atol=1e-6)

    def loss() -> Tensor:
        return sum((p.double() * torch.linspace(-1, 1, p.numel()).view_as(p)).sum() for p in learned(c).values())

    learned, c = learned.double(), {k: v.double() for k, v in c.items()}
    loss().backward()
    for alpha in (learned.sni_alpha2, learned.sni_alpha3):
        assert alpha.shape == ()
        with torch.no_grad():
            values = [(alpha.add_(step), loss())[1] for step in (1e-4, -2e-4)]
            alpha.add_(1e-4)
        assert alpha.grad.item() == pytest.approx((values[0] - values[1]).item() / 2e-4, rel=1e-5)


def test_learned_alpha_starts_at_the_area_ratio_of_even_sizes() -> None:
    learned, area = SNIFPN([4, 4, 4], 4, alpha="learned"), SNIFPN([4, 4, 4], 4)
    learned.load_state_dict(area.state_dict(), strict=False)
    maps = {f"res{i}": torch.randn(1, 4, 64 >> i, 96 >> i) for i in (2, 3, 4)}
    for name, expected in area(maps).items():
        assert torch.allclose(learned(maps)[name], expected, atol=1e-6)
    assert count_parameters(learned) == count_parameters(area) + 2


def test_parameters() -> None:
    assert count_parameters(SNIFPN(RESNET50)) == 3_344_384
    authors = SNIFPN(RESNET50, mode="authors_rcnn")
    assert count_parameters(authors) == 2_754_304
    assert not any(name.startswith("fpn_output5") for name in authors.state_dict())
    assert authors.fpn_lateral5.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not authors.fpn_output2.bias.any()


@pytest.mark.parametrize(
    ("option", "key", "words"),
    [
        ({"fuse_type": "avg"}, "MODEL.FPN.FUSE_TYPE", "expected 'sum', because the alpha of SNI is the weight"),
        ({"mode": "authors_rcn"}, "", "unknown value 'authors_rcn'; did you mean 'authors_rcnn'"),
        ({"interp": "bicubic"}, "", "unknown value 'bicubic'"),
        ({"order": "pass_smooth"}, "", "unknown value .*did you mean 'pass_smoothed'"),
        ({"alpha": "aera"}, "", "expected a number .*found 'aera'; did you mean 'area'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, key: str, words: str) -> None:
    refused("sni", SNIFPN, option, words, key)


@pytest.mark.parametrize(("option", "value"), [("alpha", "learned"), ("alpha", 0.5), ("order", "pass_sum2")])
def test_the_preset_leaves_no_choice(option: str, value: object) -> None:
    words = f"{value!r} contradicts the mode 'authors_rcnn', which sets"
    with pytest.raises(ArgumentError, match=f"^{option}: {words}"):
        SNIFPN([4, 8], 4, mode="authors_rcnn", **{option: value})
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.SNI.MODE", "authors_rcnn", f"MODEL.SNI.{option.upper()}", value])
    with pytest.raises(UserError, match=f"^MODEL.SNI.{option.upper()}: {words}"):
        PYRAMIDS.get("sni")(cfg, FPN([4, 8], 4).output_shape())


def test_the_step_is_sni() -> None:
    with pytest.raises(ArgumentError, match=r"^upsample: the step of this pyramid is 'sni'; use FPN for 'carafe'"):
        SNIFPN([4, 8], 4, upsample="carafe")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("sni", "leave it at 'nearest'"),
        ("ihp", "leave it at 'nearest'"),
        ("bifpn", "set MODEL.BIFPN.UPSAMPLE instead"),
        ("sapan", "set MODEL.SAPAN.UPSAMPLE instead"),
    ],
)
def test_the_key_of_fpn_is_not_ignored_by_other_pyramids(name: str, advice: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.FPN.UPSAMPLE = "carafe"
    words = f"MODEL.FPN.UPSAMPLE: the pyramid '{name}' does not read this key, found 'carafe'; {advice}"
    with pytest.raises(UserError, match=words):
        PYRAMIDS.get(name)(cfg, FPN([4, 8], 4).output_shape())


def test_fpn_with_sni_is_the_same_pyramid() -> None:
    sni, fpn = SNIFPN([3, 4, 5], 8), FPN([3, 4, 5], 8, upsample="sni")
    sni.load_state_dict(fpn.state_dict(), strict=True)
    maps = {f"res{i}": torch.randn(2, i + 1, *size) for i, size in [(2, (17, 23)), (3, (9, 12)), (4, (5, 6))]}
    for name, expected in fpn(maps).items():
        assert torch.equal(sni(maps)[name], expected)


def test_alpha_can_be_read_but_not_set() -> None:
    pyramid = SNIFPN([8, 16], 4, alpha=0.5)
    assert pyramid.alpha == 0.5 and SNIFPN([8, 16], 4, alpha="learned").alpha == "learned"
    with pytest.raises(AttributeError):  # a value that the steps would not read
        pyramid.alpha = 1.0
