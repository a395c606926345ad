"""Tests of PConv over FPN: what runs over which levels, counts, and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from golden_modules import count_parameters
from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.layers import CARAFE, SNI, Nearest, SyncBatchNorm, get_upsample
from sn2fpn.pyramids import FPN, PYRAMIDS, SNIFPN, PConvFPN
from sn2fpn.structures import ShapeSpec

RESNET50 = (256, 512, 1024, 2048)


def trunk_maps() -> dict[str, Tensor]:
    return {f"res{i}": torch.randn(2, i, 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}


@pytest.mark.parametrize("upsample", ["bilinear_corners", "sni"])
def test_modules_follow_fpn_with_p6(upsample: str) -> None:
    pyramid = PConvFPN([2, 3, 4, 5], 8, num=2, extra_conv=True, upsample=upsample)
    fpn = (SNIFPN if upsample == "sni" else FPN)([2, 3, 4, 5], 8)
    fpn.load_state_dict({k: v for k, v in pyramid.state_dict().items() if k.startswith("fpn_")})
    maps = trunk_maps()
    expected = list(fpn(maps).values())
    for module in (*pyramid.pconv, pyramid.pconv_extra):
        expected = module(expected)
    for found, y in zip(pyramid(maps).values(), expected):
        assert torch.allclose(found, y, atol=1e-4)


def test_levels_outside_the_row_are_fpns() -> None:
    pyramid = PConvFPN([2, 3, 4, 5], 8, num=1, levels=("p3", "p4", "p5"))
    fpn = FPN([2, 3, 4, 5], 8)
    fpn.load_state_dict(pyramid.state_dict(), strict=False)
    maps = trunk_maps()
    found, expected = pyramid(maps), fpn(maps)
    assert [name for name in found if torch.equal(found[name], expected[name])] == ["p2", "p6"]
    row = pyramid.pconv[0]([expected[name] for name in ("p3", "p4", "p5")])
    assert torch.allclose(found["p4"], row[1], atol=1e-5)


def test_retinanet_levels_take_part() -> None:
    pyramid = PConvFPN([2, 3, 4, 5], 8, num=1, levels=("p5", "p6", "p7"))
    with pytest.raises(UserError, match="expected at least 2 consecutive outputs of"):  # There is no p7 yet.
        pyramid(trunk_maps())
    pyramid.add_p6_p7()
    maps = trunk_maps()
    coarse = pyramid.top_block(maps)
    found = pyramid(maps)
    expected = pyramid.pconv[0]([FPN.fuse(pyramid, list(maps.values()))[-1], *coarse])
    assert torch.allclose(found["p7"], expected[-1], atol=1e-5)


def test_parameters() -> None:
    assert count_parameters(PConvFPN(RESNET50)) == 10_427_392
    assert count_parameters(PConvFPN(RESNET50, ibn=False)) == 10_427_392 - 4 * 2 * 256
    assert count_parameters(PConvFPN(RESNET50, deform="all")) == 10_427_392 + 4 * 124_470
    assert count_parameters(PConvFPN(RESNET50, extra_conv=True)) == 10_427_392 + 590_080 + 512


def test_configuration_reaches_the_modules() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.PCONV.NUM", 2, "MODEL.PCONV.IBN_NORM", "SyncBN"])
    cfg.merge_from_list(["MODEL.PCONV.DEFORM", "all", "MODEL.PCONV.EXTRA_CONV", True])
    shape = FPN([4, 8], 8).output_shape()
    pyramid = PYRAMIDS.get("pconv")(cfg, {name: shape[name] for name in ("p2", "p3")})
    norms = [m for m in pyramid.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 3 and all(isinstance(m, SyncBatchNorm) for m in norms)
    assert pyramid.pconv[1].same.offset.weight.shape == (18, 8, 3, 3)
    assert pyramid.pconv_extra.conv.offset.weight.shape == (18, 8, 3, 3)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"levels": ("p3",)}, r"expected at least 2 consecutive outputs of \('p2', 'p3', 'p4', 'p5', 'p6'\)"),
        ({"levels": ("p2", "p4")}, "expected at least 2 consecutive"),
        ({"levels": ("p3", "p2")}, r".*found \('p3', 'p2'\)"),
        ({"levels": ("p8", "p9")}, r".*found \('p8', 'p9'\)"),
        ({"deform": "lite"}, "unknown value 'lite'"),
        ({"upsample": "bilinear_corner"}, "unknown value .*did you mean 'bilinear_corners'"),
        ({"ibn_norm": "bn"}, "unknown .*'bn'; did you mean 'BN'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, words: str) -> None:
    refused("pconv", PConvFPN, option, words)


def test_a_deformable_row_needs_three_levels() -> None:
    with pytest.raises(ArgumentError, match=r"^levels: expected at least 3 consecutive"):
        PConvFPN([4, 4], 8, levels=("p3", "p4"), deform="all")
    pyramid = PConvFPN({"res5": ShapeSpec(channels=4, stride=32)}, 8, deform="all")  # p5 and p6
    maps = {"res5": torch.randn(1, 4, 6, 8)}
    with pytest.raises(ArgumentError, match=r"^levels: expected at least 3 .*; found \('p5', 'p6'\)"):
        pyramid(maps)
    pyramid.add_p6_p7()
    assert list(pyramid(maps)) == ["p5", "p6", "p7"]


@pytest.mark.parametrize(
    ("upsample", "of_fpn"),
    [("bilinear_corners", Nearest), ("bilinear", Nearest), ("nearest", Nearest), ("sni", SNI), ("carafe", CARAFE)],
)
def test_the_fpn_upsamples_like_the_row_but_for_bilinear_interpolation(upsample: str, of_fpn: type) -> None:
    pyramid = PConvFPN([4, 4], 8, upsample=upsample)
    assert type(pyramid.fpn_upsample2) is of_fpn and type(pyramid.pconv[0].upsample) is type(get_upsample(upsample, 8))
