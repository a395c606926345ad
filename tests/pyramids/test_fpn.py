"""Tests of FPN: the golden case, the equations, Detectron2's parameter names, and the upsampling modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from golden_modules import count_parameters, load_case
from sn2fpn.errors import ArgumentError
from sn2fpn.pyramids import FPN

RESNET50 = (256, 512, 1024, 2048)
ROLES = {f"{kind}{i}": f"fpn_{kind}{i}" for kind in ("lateral", "output") for i in (2, 3, 4, 5)}


def test_golden() -> None:
    case = load_case("fpn_standard")
    fpn = FPN(case.hyper["in_channels"], case.hyper["width"])
    case.load_into(fpn, ROLES)
    case.check(fpn({f"res{i}": case.inputs[f"c{i}"] for i in (2, 3, 4, 5)}))


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_matches_the_equations_on_odd_sizes(fuse_type: str) -> None:
    fpn = FPN([3, 4, 5], 6, fuse_type=fuse_type)
    w = fpn.state_dict()
    c = [torch.randn(2, 3 + i, *size) for i, size in enumerate([(17, 23), (9, 12), (5, 6)])]
    lateral = [F.conv2d(x, w[f"fpn_lateral{i}.weight"], w[f"fpn_lateral{i}.bias"]) for i, x in enumerate(c, 2)]
    share = 0.5 if fuse_type == "avg" else 1.0
    t4 = lateral[2]
    t3 = share * (lateral[1] + F.interpolate(t4, size=(9, 12)))
    t2 = share * (lateral[0] + F.interpolate(t3, size=(17, 23)))
    p = fpn({f"res{i}": x for i, x in enumerate(c, 2)})
    for i, t in enumerate((t2, t3, t4), 2):
        expected = F.conv2d(t, w[f"fpn_output{i}.weight"], w[f"fpn_output{i}.bias"], padding=1)
        assert torch.allclose(p[f"p{i}"], expected, atol=1e-5)
    assert torch.equal(p["p5"], p["p4"][:, :, ::2, ::2])


def test_parameters() -> None:
    fpn = FPN(RESNET50)
    assert count_parameters(fpn) == 3_344_384
    names = {f"fpn_{kind}{i}.{p}" for kind in ("lateral", "output") for i in (2, 3, 4, 5) for p in ("weight", "bias")}
    assert set(fpn.state_dict()) == names
    bound = (3 / (9 * 256)) ** 0.5  # Kaiming-uniform with a = 1
    weight = fpn.fpn_output2.weight
    assert bound * 0.99 < weight.abs().max().item() <= bound
    assert not fpn.fpn_lateral5.bias.any()
    with_norm = FPN(RESNET50, norm="GN").state_dict()
    assert "fpn_lateral2.bias" not in with_norm
    assert with_norm["fpn_output3.norm.weight"].shape == (256,)


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "sni", "sni:learned", "deconv", "carafe", "dysample"])
def test_the_step_is_the_upsampling_module(kind: str) -> None:
    fpn = FPN([3, 4, 5], 8, upsample=kind)
    maps = {f"res{i}": torch.randn(2, i + 1, *size) for i, size in [(2, (17, 23)), (3, (9, 12)), (4, (5, 6))]}
    t4 = fpn.fpn_lateral4(maps["res4"])
    t3 = fpn.fpn_lateral3(maps["res3"]) + fpn.fpn_upsample3(t4, (9, 12))
    t2 = fpn.fpn_lateral2(maps["res2"]) + fpn.fpn_upsample2(t3, (17, 23))
    outputs = fpn(maps)
    for i, t in enumerate((t2, t3, t4), 2):
        assert torch.allclose(outputs[f"p{i}"], getattr(fpn, f"fpn_output{i}")(t), atol=1e-5)
    assert fpn.fpn_upsample4 is None
    names = {name for name, _ in fpn.named_parameters() if "upsample" in name}
    assert names == {f"fpn_upsample{i}.{name}" for i in (2, 3) for name, _ in fpn.fpn_upsample2.named_parameters()}


@pytest.mark.parametrize(("kind", "expected"), [("deconv", 1_048_832), ("carafe", 74_148), ("dysample", 8_224)])
def test_parameters_of_a_learned_step(kind: str, expected: int) -> None:
    assert count_parameters(FPN(RESNET50, upsample=kind)) == 3_344_384 + 3 * expected


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"fuse_type": "add"}, "unknown value 'add'"),
        ({"upsample": "nearst"}, "unknown value 'nearst'; did you mean 'nearest'"),
        ({"upsample": "sni:x"}, "expected 'learned' or a positive number after 'sni:', found 'x'"),
        ({"norm": "bn"}, "unknown .*'bn'; did you mean 'BN'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, words: str) -> None:
    refused("fpn", FPN, option, words)


def test_channels_that_a_kind_cannot_have() -> None:
    with pytest.raises(ArgumentError, match=r"^upsample: 'dysample' cannot have 6 channels \(groups: .* found 4\)"):
        FPN([4, 8], 6, upsample="dysample")


@pytest.mark.parametrize("upsample", ["sni", "sni:0.5", "sni:learned"])
def test_sni_is_not_averaged(upsample: str) -> None:
    with pytest.raises(ArgumentError, match=r"^fuse_type: expected 'sum', because the alpha of SNI"):
        FPN([4, 8], 4, fuse_type="avg", upsample=upsample)
