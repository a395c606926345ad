"""Tests of FaPN: the golden case, the equations under every option, the state at the start, and counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from golden_modules import count_parameters, load_case
from sn2fpn.config import get_cfg
from sn2fpn.layers import SNI
from sn2fpn.pyramids import FPN, PYRAMIDS, FaPN

RESNET50 = (256, 512, 1024, 2048)


def test_golden() -> None:
    case = load_case("fapn")
    pyramid = FaPN(case.hyper["in_channels"], case.hyper["width"], groups=case.hyper["deform_groups"])
    roles = {"lateral5": "fpn_lateral5"}
    for i in (2, 3, 4):
        roles |= {f"select{i}_{part}": f"fapn_select{i}.{part}" for part in ("attention", "conv")}
        roles |= {f"align{i}_{part}": f"fapn_align{i}.{part}" for part in ("mix", "deform")}
        roles |= {f"align{i}_offset_mask": f"fapn_align{i}.deform.offset", f"output{i}": f"fpn_output{i}"}
    case.load_into(pyramid, roles)
    case.tolerance = 1e-5  # The recorded tolerance is wider.
    case.check(pyramid({f"res{i}": case.inputs[f"c{i}"] for i in (2, 3, 4, 5)}))


@pytest.mark.parametrize(
    ("fsm", "align", "upsample"),
    [(True, "deform", "bilinear"), (False, "deform", "nearest"), (True, "none", "sni"), (False, "none", "bilinear")],
)
def test_equations_at_initialisation_on_odd_sizes(fsm: bool, align: str, upsample: str) -> None:
    pyramid = FaPN([3, 4, 5], 8, fsm=fsm, align=align, upsample=upsample, groups=4)
    w = pyramid.state_dict()
    c = {i: torch.randn(2, i + 1, *size) for i, size in [(2, (17, 23)), (3, (9, 12)), (4, (5, 6))]}
    outputs = pyramid({f"res{i}": x for i, x in c.items()})
    t = F.conv2d(c[4], w["fpn_lateral4.weight"], w["fpn_lateral4.bias"])
    assert torch.allclose(outputs["p4"], t, atol=1e-5)  # There is no output convolution.
    for i in (3, 2):
        x = c[i]
        if fsm:
            mean = x.mean((2, 3), keepdim=True)
            x = x + x * F.conv2d(mean, w[f"fapn_select{i}.attention.weight"]).sigmoid()
        lateral = F.conv2d(x, w[f"fapn_select{i}.conv.weight"])
        size = lateral.shape[2:]
        if upsample == "bilinear":
            a = F.interpolate(t, size, mode="bilinear", align_corners=False)
        else:
            ratio = t[0, 0].numel() / lateral[0, 0].numel()
            a = F.interpolate(t, size) * (ratio if upsample == "sni" else 1)
        if align == "deform":  # At the start there are no offsets, and the masks are 1/2.
            a = F.conv2d(a, w[f"fapn_align{i}.deform.weight"], padding=1).div(2).relu()
        t = lateral + a
        p = F.conv2d(t, w[f"fpn_output{i}.weight"], w[f"fpn_output{i}.bias"], padding=1)
        assert torch.allclose(outputs[f"p{i}"], p, atol=1e-5)


def test_parameters() -> None:
    pyramid = FaPN(RESNET50)
    assert count_parameters(pyramid) == 7_786_888
    assert count_parameters(FaPN((64, 128, 256, 512))) == 5_759_368
    assert count_parameters(FaPN(RESNET50, norm="BN")) == 7_789_448
    assert count_parameters(FaPN(RESNET50, fsm=False)) == 7_786_888 - sum(c * c for c in RESNET50[:3])
    assert count_parameters(FaPN(RESNET50, align="none")) == 7_786_888 - 3_657_096
    names = set(FaPN(RESNET50, norm="BN").state_dict())
    assert "fapn_align2.mix.norm.weight" in names and "fapn_align2.deform.bias" in names
    assert "fpn_lateral5.bias" not in names and not any("select2" in n and "norm" in n for n in names)


def test_initialisation() -> None:
    pyramid = FaPN(RESNET50)
    select, align = pyramid.fapn_select3, pyramid.fapn_align3
    for conv, bound in [
        (select.attention, (3 / 512) ** 0.5),
        (select.conv, (3 / 512) ** 0.5),
        (align.mix, (3 / 512) ** 0.5),
        (pyramid.fpn_output3, (3 / (9 * 256)) ** 0.5),  # Kaiming-uniform, a = 1
        (align.deform, (9 * 256) ** -0.5),
        (pyramid.fpn_lateral5, 2048**-0.5),  # PyTorch's default
    ]:
        assert bound * 0.99 < conv.weight.abs().max().item() <= bound * (1 + 1e-6)
    assert pyramid.fpn_lateral5.bias.any()
    for zero in (align.deform.bias, align.deform.offset.weight, align.deform.offset.bias, pyramid.fpn_output3.bias):
        assert not zero.any()


def test_configuration_reaches_the_modules() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.FAPN.GROUPS", 2, "MODEL.FAPN.FSM", False])
    cfg.merge_from_list(["MODEL.FAPN.UPSAMPLE", "sni", "MODEL.FPN.NORM", "BN"])
    shape = FPN([4, 8], 8).output_shape()
    pyramid = PYRAMIDS.get("fapn")(cfg, {name: shape[name] for name in ("p2", "p3")})
    assert pyramid.fapn_align2.deform.offset.out_channels == 27 * 2 and isinstance(pyramid.fapn_upsample2, SNI)
    assert pyramid.fapn_select2.attention is None and pyramid.fpn_lateral3.norm is not None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"groups": 3}, "expected a divisor of the pyramid's width 8, found 3"),
        ({"align": "deformable"}, "unknown value 'deformable'; did you mean 'deform'"),
        ({"upsample": "linear"}, "unknown value 'linear'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, words: str) -> None:
    refused("fapn", FaPN, option, words)
