"""Tests of IHP: the golden block of one level, the independence of the levels, counts, and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from golden_modules import count_parameters, load_case
from sn2fpn.config import get_cfg
from sn2fpn.pyramids import FPN, IHP, PYRAMIDS

RESNET50 = (256, 512, 1024, 2048)
LAT = 256 * sum(RESNET50) + 4 * 256


def test_golden_level_block() -> None:
    case = load_case("ihp_level_n1")
    block = IHP([4], case.hyper["c_out"], depths=(1,)).ihp_filter2.eval()
    names = {"gs_main": "0.main", "gs_aux_dense": "0.aux_dense", "gs_aux_depthwise": "0.aux_depthwise"}
    names |= {f"c3_{part}": f"1.{part}" for part in ("a", "b", "out")}
    names |= {f"c3_block0_{j}": f"1.blocks.0.{j - 1}" for j in (1, 2)}
    case.load_into(block, names)
    case.check({"y": block(case.inputs["x"])})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 5_355_520),
        ({"depths": (1, 1, 1, 1)}, 4_469_248),
        ({"filter": "gsconve"}, 2_759_168),
        ({"filter": "conv3x3"}, 3_344_384),
        # A block has 1x1 256->128, 3x3 128->128 and 1x1 128->256 convolutions, with a norm after each.
        ({"filter": "bottleneck"}, LAT + 7 * (2 * 256 * 128 + 9 * 128**2 + 2 * (128 + 128 + 256))),
    ],
)
def test_parameter_counts(options: dict, expected: int) -> None:
    assert count_parameters(IHP(RESNET50, **options)) == expected


@pytest.mark.parametrize("filter", ["gsconve_c3", "gsconve", "conv3x3", "bottleneck"])
def test_levels_are_independent(filter: str) -> None:
    pyramid = IHP([4, 6, 8], 8, filter=filter, depths=(1, 2, 1)).eval()
    maps = {f"res{i}": torch.randn(1, 2 * i, 40 >> i, 56 >> i) for i in (2, 3, 4)}
    before = pyramid(maps)
    maps["res3"] = torch.randn_like(maps["res3"])
    after = pyramid(maps)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["p3"]


def test_conv3x3_is_fpn_without_its_top_down_additions() -> None:
    fpn, ihp = FPN([4, 6, 8], 8), IHP([4, 6, 8], 8, filter="conv3x3")
    ihp.load_state_dict(fpn.state_dict(), strict=True)
    maps = {f"res{i}": torch.randn(1, 2 * i, 40 >> i, 56 >> i) for i in (2, 3, 4)}
    found = ihp(maps)
    for i in (2, 3, 4):
        expected = getattr(fpn, f"fpn_output{i}")(getattr(fpn, f"fpn_lateral{i}")(maps[f"res{i}"]))
        assert torch.equal(found[f"p{i}"], expected)


def test_laterals_of_an_fpn_checkpoint_load_under_every_filter() -> None:
    state = FPN([4, 6, 8, 10], 8).state_dict()
    report = IHP([4, 6, 8, 10], 8).load_state_dict(state, strict=False)
    assert all(key.startswith("fpn_output") for key in report.unexpected_keys)
    assert all(key.startswith("ihp_filter") for key in report.missing_keys)


def test_configuration_reaches_the_filters() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.IHP.DEPTHS", (2, 1, 1, 3)])
    cfg.merge_from_list(["MODEL.IHP.NORM_EPS", 1e-3, "MODEL.IHP.NORM_MOMENTUM", 0.03, "MODEL.IHP.AUX_KERNEL", 1])
    shape = FPN([4, 8, 8, 8], 8).output_shape()
    pyramid = PYRAMIDS.get("ihp")(cfg, {name: shape[name] for name in ("p2", "p3", "p4", "p5")})
    assert [len(getattr(pyramid, f"ihp_filter{i}")[1].blocks) for i in (2, 3, 4, 5)] == [2, 1, 1, 3]
    assert pyramid.ihp_filter2[0].aux_dense.kernel_size == (1, 1)
    norms = [m for m in pyramid.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((m.eps, m.momentum) == (1e-3, 0.03) for m in norms)
    cfg.MODEL.IHP.NORM = ""
    pyramid = PYRAMIDS.get("ihp")(cfg, {name: shape[name] for name in ("p2", "p3", "p4", "p5")})
    assert pyramid.ihp_filter2[0].main.bias is not None


@pytest.mark.parametrize(
    ("in_features", "depths", "expected"),
    [
        (("p3", "p4", "p5"), (4, 1, 2, 3), [1, 2, 3]),
        (("p2", "p3"), (4, 1, 2, 3), [4, 1]),
        (("p3", "p4"), (2, 1), [2, 1]),
    ],
)
def test_four_depths_are_those_of_p2_to_p5(in_features: tuple, depths: tuple, expected: list[int]) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.FPN.IN_FEATURES", in_features, "MODEL.IHP.DEPTHS", depths])
    pyramid = PYRAMIDS.get("ihp")(cfg, FPN([4, 8, 8, 8], 8).output_shape())
    assert [len(f[1].blocks) for f in pyramid.per_level("ihp_filter")] == expected


@pytest.mark.parametrize(
    ("option", "key", "words"),
    [
        ({"filter": "conv3"}, "", "unknown value 'conv3'; did you mean 'conv3x3'"),
        ({"depths": (1, 1)}, "", r"expected 4 numbers, .*found \(1, 1\)"),
        ({"depths": (1, 0, 1, 1)}, "", "expected a whole number of at least 1, found 0"),
        ({"out_channels": 7}, "MODEL.FPN.OUT_CHANNELS", ".*multiple of 2, found 7"),
        ({"filter_norm": "bn"}, "MODEL.IHP.NORM", "unknown .*'bn'; did you mean 'BN'"),
        ({"norm": "bn"}, "MODEL.FPN.NORM", "unknown .*'bn'; did you mean 'BN'"),
        ({"aux_kernel": 2}, "", ".*odd.*found 2"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, key: str, words: str) -> None:
    refused("ihp", IHP, option, words, key)
