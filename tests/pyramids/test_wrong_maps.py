"""Test what a pyramid says when it is called with wrong maps, and what keys out of their ranges are answered with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.pyramids import FPN, GFPN, PAFPN, PYRAMIDS, BiFPN, Pyramid
from sn2fpn.pyramids.checks import TRUNK

SIZES = {2: (32, 24), 3: (16, 12), 4: (8, 6), 5: (4, 3)}


def maps(**changes: Any) -> dict[str, torch.Tensor]:
    """Return the maps of the trunk with some replaced."""
    return {f"res{i}": torch.randn(2, 4 * i, *size) for i, size in SIZES.items()} | changes


def build(name: str, *overrides: Any) -> Pyramid:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 16, *overrides])
    return PYRAMIDS.get(name)(cfg, TRUNK)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_the_map_at_fault_is_named(name: str) -> None:
    pyramid = build(name)
    for wrong, found in (
        (torch.randn(2, 11, 16, 12), r"\(2, 11, 16, 12\)"),
        (torch.randn(12, 16, 12), r"\(12, 16, 12\)"),
        (torch.randn(1, 12, 16, 12), r"\(1, 12, 16, 12\)"),
    ):
        with pytest.raises(ValueError, match=rf"^res3: expected a map of shape \(2, 12, H, W\), found {found}$"):
            pyramid(maps(res3=wrong))
    assert pyramid(maps())["p2"].shape == (2, 16, 32, 24)


@pytest.mark.parametrize("cls", [BiFPN, PAFPN, GFPN])
def test_sizes_that_do_not_halve_are_an_explained_error(cls: type[Pyramid]) -> None:
    with pytest.raises(ValueError, match=r"sizes halve and round up .* 'res3': \(15, 11\)") as caught:
        cls(TRUNK, 16)(maps(res3=torch.randn(2, 12, 15, 11)))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_other_errors_of_a_pyramid_pass_unchanged() -> None:
    class Fails(FPN):
        def fuse(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
            raise RuntimeError("the reason")

    with pytest.raises(RuntimeError, match=r"^the reason$"):
        Fails(TRUNK, 16)(maps())


@pytest.mark.parametrize(
    ("method", "result", "words"),
    [
        ("fuse", None, r"expected a list of the first 4 or 5 of the maps \('p2', .*'p6'\); found a NoneType"),
        ("fuse", [torch.zeros(2, 16, 32, 24)] * 3, "found 3 maps"),
        ("fuse", torch.zeros(2, 16, 32, 24), "found a Tensor"),
        ("refine", [torch.zeros(2, 16, 32, 24)] * 6, "the first 5 of the maps .* found 6 maps"),
    ],
)
def test_a_method_that_returns_no_list_of_its_maps(method: str, result: Any, words: str) -> None:
    broken = type("Broken", (FPN,), {method: lambda self, x: result})
    with pytest.raises(UserError, match=rf"^Broken.{method}: .*{words}"):
        broken(TRUNK, 16)(maps())


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("fpn", "MODEL.FPN.OUT_CHANNELS", -1),
        ("fpn", "MODEL.FPN.UPSAMPLE", "sni:0"),
        ("sni", "MODEL.SNI.ALPHA", -1.0),
        ("sni", "MODEL.SNI.ALPHA", 0.0),
        ("sni", "MODEL.SNI.ALPHA", 0),
        ("ihp", "MODEL.IHP.DEPTHS", (1, 1, 0, 1)),
        ("ihp", "MODEL.IHP.AUX_KERNEL", -1),
        ("pafpn", "MODEL.PAFPN.UPSAMPLE", "sni:-1"),
        ("bifpn", "MODEL.BIFPN.NUM_CELLS", 0),
        ("pconv", "MODEL.PCONV.NUM", -1),
        ("gfpn", "MODEL.GFPN.DEPTH", 0),
        ("gfpn", "MODEL.GFPN.INNER_CHANNELS", 0),
        ("fapn", "MODEL.FAPN.GROUPS", 0),
    ],
)
def test_a_key_out_of_its_range_is_named(name: str, key: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{key}: expected"):
        build(name, key, value)


def test_what_is_unusual_but_makes_sense_is_accepted() -> None:
    x = maps()
    assert build("pconv", "MODEL.PCONV.NUM", 0)(x)["p5"].shape == (2, 16, 4, 3)
    assert build("sni", "MODEL.SNI.ALPHA", 2)(x)["p5"].shape == (2, 16, 4, 3)
    depths = build("ihp", "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], "MODEL.IHP.DEPTHS", (0, 1, 1, 1))
    assert depths(x)["p3"].shape == (2, 16, 16, 12)  # the depth of p2, which is not used, may be 0
