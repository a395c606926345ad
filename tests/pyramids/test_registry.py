"""Tests of the registry: one file and one decorator add a pyramid, and keys become the arguments of its class."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sn2fpn import pyramids
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.layers import CARAFE, SNI
from sn2fpn.pyramids import FPN, PYRAMIDS, SNIFPN, BiFPN, Levels, Pyramid, pyramid_from_backbone_name, register_pyramid

LINES = '''
"""Laterals alone: P_l = conv1x1(C_l)."""

from sn2fpn.pyramids import Pyramid, register_pyramid


@register_pyramid("laterals_only")
class LateralsOnly(Pyramid):
    def __init__(self, *inputs, **shared):
        super().__init__(*inputs, **shared)
        self.add_laterals()

    def fuse(self, features):
        return self.laterals(features)
'''
TRUNK = FPN([4, 4], 4).output_shape()


@pytest.fixture
def one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file in the folder of the pyramids, which is extended for the test instead of written to."""
    (tmp_path / "laterals_only.py").write_text(LINES)
    monkeypatch.setattr(pyramids, "__path__", [*pyramids.__path__, str(tmp_path)])
    pyramids.import_all()
    yield
    PYRAMIDS.remove("laterals_only")
    sys.modules.pop("sn2fpn.pyramids.laterals_only")


def test_one_file_and_one_registration(one_new_file: None) -> None:
    cfg = get_cfg()
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    pyramid = pyramid_from_backbone_name("build_sn2_laterals_only_backbone")(cfg, TRUNK)
    assert isinstance(pyramid, Pyramid)
    shapes = {f"p{i}": torch.randn(1, 4, 64 >> i, 64 >> i) for i in (2, 3, 4)}
    assert [tuple(p.shape) for p in pyramid(shapes).values()] == [(1, 8, 64 >> i, 64 >> i) for i in (2, 3, 4, 5)]
    assert set(pyramid.state_dict()) == {f"fpn_lateral{i}.{p}" for i in (2, 3, 4) for p in ("weight", "bias")}
    cfg.MODEL.FPN.UPSAMPLE = "sni"
    with pytest.raises(UserError, match=r"MODEL.FPN.UPSAMPLE: the pyramid 'laterals_only' does not read this key"):
        PYRAMIDS.get("laterals_only")(cfg, TRUNK)


def test_a_name_is_registered_once_and_forgotten_after_removal() -> None:
    with pytest.raises(ArgumentError, match=r"^name: the pyramid 'fpn' is registered already; choose another name"):
        register_pyramid("fpn")(FPN)
    with pytest.raises(UserError, match="unknown backbone"):
        pyramid_from_backbone_name("build_sn2_laterals_only_backbone")


class NoFuse(Pyramid):
    pass


class Other:
    pass


@pytest.mark.parametrize(
    ("name", "target", "options", "words"),
    [
        ("mine two", FPN, {}, "name: expected a name of letters, digits and underscores, .* found 'mine two'"),
        ("", FPN, {}, "name: expected a name of letters"),
        ("fpn_retinanet", FPN, {}, "name: .* not ending in '_retinanet'"),  # the name of FPN with p6 and p7
        (FPN, FPN, {}, r"name: .* as in @register_pyramid\('mine'\); found <class"),
        ("mine", "FPN", {}, "target: expected a class of pyramids or a function, found str"),
        ("mine", FPN([8, 8], 8), {}, "target: expected a class of pyramids or a function, found FPN"),
        ("mine", Other, {}, "target: expected a subclass of Pyramid, found Other"),
        ("mine", NoFuse, {}, "target: NoFuse has no method `fuse`"),
        ("mine", FPN, {"upsampel": "sni"}, "upsampel: FPN takes no such argument; did you mean 'upsample'"),
        ("mine", FPN, {"renames": {"NORM": "nrom"}}, "nrom: FPN takes no such argument; did you mean 'norm'"),
    ],
)
def test_what_cannot_be_registered(name: Any, target: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{words}"):
        register_pyramid(name, **options)(target)
    assert "mine" not in PYRAMIDS


class Mine(FPN):
    def __init__(self, *inputs: Any, size: int = 3, inner_norm: Any = "GN", **shared: Any) -> None:
        super().__init__(*inputs, **shared)
        self.size, self.inner_norm = size, inner_norm


@pytest.fixture
def register() -> Iterator[Callable[..., Callable[[CfgNode], Pyramid]]]:
    """Register something as "mine", and return its builder on a fixed trunk."""

    def as_mine(target: Any, **options: Any) -> Callable[[CfgNode], Pyramid]:
        register_pyramid("mine", **options)(target)
        return lambda cfg: PYRAMIDS.get("mine")(cfg, TRUNK)

    yield as_mine
    PYRAMIDS.remove("mine")


def test_keys_of_fpn_reach_a_class_without_a_group(register: Callable) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.FPN.IN_FEATURES", ["p2", "p3"], "MODEL.FPN.NORM", "BN"])
    cfg.merge_from_list(["MODEL.FPN.FUSE_TYPE", "avg", "MODEL.FPN.UPSAMPLE", "carafe"])
    pyramid = register(Mine)(cfg)
    assert pyramid.inputs == Levels(("p2", "p3"), (4, 8), (4, 4), 8)
    assert pyramid.fuse_type == "avg" and isinstance(pyramid.fpn_upsample2, CARAFE)
    assert isinstance(pyramid.fpn_output3.norm, nn.BatchNorm2d) and pyramid.size == 3


def test_a_group_comes_after_fpn_with_renames_and_a_whole_norm(register: Callable) -> None:
    cfg = get_cfg()
    cfg.MODEL.OWN = CfgNode({"SIZE": None, "FUSE_TYPE": "avg", "NORM": "BN", "NORM_EPS": 0.25, "NORM_MOMENTUM": 0.5})
    build = register(Mine, group="OWN", renames={"NORM": "inner_norm"})
    pyramid = build(cfg)
    assert pyramid.size == 3 and pyramid.fuse_type == "avg"  # None leaves the default of the class
    norm = pyramid.inner_norm(8)
    assert isinstance(norm, nn.BatchNorm2d) and (norm.eps, norm.momentum) == (0.25, 0.5)
    cfg.MODEL.OWN.FUSE_TYPE = "avrg"
    with pytest.raises(UserError, match=r"^MODEL.OWN.FUSE_TYPE: unknown value 'avrg'; did you mean 'avg'"):
        build(cfg)


def test_fixed_settings_of_a_class_and_of_a_function(register: Callable) -> None:
    cfg = get_cfg()
    build = register(Mine, size=5, upsample="sni")
    assert build(cfg).size == 5 and isinstance(build(cfg).fpn_upsample2, SNI)
    cfg.MODEL.FPN.UPSAMPLE = "carafe"
    with pytest.raises(UserError, match="the pyramid 'mine' does not read this key, found 'carafe'"):
        build(cfg)
    PYRAMIDS.remove("mine")

    def make(cfg: CfgNode, input_shape: Any, size: int = 3) -> Mine:
        return Mine(input_shape, cfg.MODEL.FPN.OUT_CHANNELS, size=size)

    assert register(make, size=7)(get_cfg()).size == 7
    PYRAMIDS.remove("mine")
    assert register(make)(get_cfg()).size == 3


def test_levels_are_described_by_channels_or_by_a_trunk() -> None:
    levels = Levels.of([8, 12, 16], width=4)
    assert levels == Levels(("res2", "res3", "res4"), (4, 8, 16), (8, 12, 16), 4) and levels.numbers == (2, 3, 4)
    assert Levels.of(FPN([8, 12, 16], 4).output_shape(), 6, ["p4", "p5"]) == Levels(("p4", "p5"), (16, 32), (4, 4), 6)
    with pytest.raises(ArgumentError, match=r"^in_features: the trunk has no output 'res6'; did you mean"):
        Levels.of([8, 12, 16], 4, ["res6"])


@pytest.mark.parametrize("name", ["fpn", "sni", "ihp", "pafpn", "sapan", "bifpn", "pconv", "gfpn", "fapn"])
def test_a_second_name_of_a_class_builds_the_same_pyramid(register: Callable, name: str) -> None:
    original = PYRAMIDS.get(name)
    cfg = get_cfg()
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.BIFPN.NUM_CELLS = 32, 2
    assert repr(register(original.cls)(cfg)) == repr(original(cfg, TRUNK))


def test_a_variant_of_a_class_differs_in_its_settings(register: Callable) -> None:
    cfg = get_cfg()
    assert register(SNIFPN, alpha=0.5)(cfg).alpha == 0.5 and PYRAMIDS.get("sni")(cfg, TRUNK).alpha == "area"
    PYRAMIDS.remove("mine")

    class Short(BiFPN):
        def __init__(self, *inputs: Any, out_channels: int) -> None:
            super().__init__(*inputs, out_channels=out_channels, num_cells=1)

    assert register(Short)(cfg).num_cells == 1  # keys that the class does not take are those of BiFPN alone


@pytest.mark.parametrize("name", ["bifpn", "ihp", "gfpn", "fapn"])
def test_a_key_that_a_pyramid_does_not_read_is_refused(name: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.FPN.FUSE_TYPE = "avg"
    with pytest.raises(UserError, match=rf"^MODEL.FPN.FUSE_TYPE: the pyramid '{name}' does not read this key, .*'sum'"):
        PYRAMIDS.get(name)(cfg, TRUNK)
