"""Test ResNet trunks: Detectron2's names, shapes, freezing and configuration, and ESD."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from sn2fpn.checkpoint import Checkpointer
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.errors import UserError
from sn2fpn.layers import FrozenBatchNorm2d, GroupNorm
from sn2fpn.modeling.backbone import build_backbone
from sn2fpn.modeling.trunk import ResNet, build_trunk, frozen_norm_warning

STAGES = ["res2", "res3", "res4", "res5"]


def make_cfg(depth: int = 18, **overrides: Any) -> CfgNode:
    """Return the configuration of a trunk with BN and nothing frozen; `ESD__MODE=1` sets MODEL.ESD.MODE to 1."""
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    defaults = dict(
        RESNETS__OUT_FEATURES=STAGES, RESNETS__STRIDE_IN_1X1=False, RESNETS__NORM="BN", BACKBONE__FREEZE_AT=0
    )
    for key, value in (defaults | overrides).items():
        *parents, leaf = key.split("__")
        node = cfg.MODEL
        for parent in parents:
            node = node[parent]
        assert leaf in node, key
        node[leaf] = value
    return cfg


def fpn_cfg(depth: int) -> CfgNode:
    """Return the configuration of the trunk and pyramid of Detectron2's Faster R-CNN."""
    return make_cfg(
        depth,
        BACKBONE__NAME="build_resnet_fpn_backbone",
        BACKBONE__FREEZE_AT=2,
        FPN__IN_FEATURES=STAGES,
        RESNETS__NORM="FrozenBN",
        RESNETS__STRIDE_IN_1X1=True,
    )


def randomise(model: nn.Module) -> None:
    """Give the norms values near 1 that have an effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1:
                noise = torch.randn(tensor.shape, generator=generator)
                one = name.endswith(("norm.weight", "bn1.weight", "running_var"))
                tensor.copy_((1 + 0.1 * noise.abs()) if one else 0.1 * noise)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ------------------------------------------------------------------ names, shapes, trainability


@pytest.mark.parametrize("case", ["faster_rcnn_R_18_FPN", "faster_rcnn_R_50_FPN", "faster_rcnn_R_101_FPN"])
def test_names_shapes_and_trainability_are_detectron2s(golden: Path, case: str) -> None:
    entries = json.loads((golden / "detectron2/state_dicts.json").read_text())[case]["entries"]
    expected = {k: v for k, v in entries.items() if k.startswith("backbone.")}
    backbone = build_backbone(fpn_cfg(int(case.split("_")[3])))
    parameters = dict(backbone.named_parameters())

    def kind(name: str) -> str:
        if name not in parameters:
            return "buffer"
        return "param" if parameters[name].requires_grad else "frozen param"

    found = {
        f"backbone.{name}": [str(t.dtype).removeprefix("torch."), list(t.shape), kind(name)]
        for name, t in backbone.state_dict().items()
    }
    assert found == expected


def test_backbone_contract() -> None:
    backbone = build_backbone(fpn_cfg(18))
    assert backbone.size_divisibility == 32
    maps = backbone(torch.rand(2, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        "p2": (2, 256, 16, 24),
        "p3": (2, 256, 8, 12),
        "p4": (2, 256, 4, 6),
        "p5": (2, 256, 2, 3),
        "p6": (2, 256, 1, 2),
    }
    assert [s.stride for s in backbone.output_shape().values()] == [4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("depth", "theirs"), [(34, "resnet34"), (50, "resnext50_32x4d"), (101, "resnet101"), (152, "resnet152")]
)
def test_parameter_count_is_torchvisions_without_classifier(depth: int, theirs: str) -> None:
    model = getattr(torchvision.models, theirs)()
    groups = dict(RESNETS__NUM_GROUPS=32, RESNETS__WIDTH_PER_GROUP=4) if "next" in theirs else {}
    assert count(build_trunk(make_cfg(depth, **groups))) == count(model) - count(model.fc)


def test_grouped_bottlenecks_compute_as_torchvisions(tmp_path: Path) -> None:
    theirs = torchvision.models.resnext50_32x4d().eval()
    randomise(theirs)
    ours = build_trunk(make_cfg(50, RESNETS__NUM_GROUPS=32, RESNETS__WIDTH_PER_GROUP=4)).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    Checkpointer(ours).load(tmp_path / "w.pth")
    x = torch.rand(1, 3, 65, 97)  # odd sizes
    with torch.no_grad():
        found = ours(x)["res5"].mean((2, 3))
        theirs.fc = nn.Identity()
        expected = theirs(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_strides_dilation_and_outputs() -> None:
    msra = build_trunk(make_cfg(50, RESNETS__STRIDE_IN_1X1=True))
    assert msra.res3[0].conv1.stride == (2, 2) and msra.res3[0].conv2.stride == (1, 1)
    dilated = build_trunk(make_cfg(50, RESNETS__RES5_DILATION=2, RESNETS__OUT_FEATURES=["stem", "res4", "res5"]))
    assert [tuple(s)[0::3] for s in dilated.output_shape().values()] == [(64, 4), (1024, 16), (2048, 16)]
    maps = dilated(torch.rand(1, 3, 64, 64))
    assert list(maps) == ["stem", "res4", "res5"] and maps["res5"].shape == (1, 2048, 4, 4)
    assert not hasattr(build_trunk(make_cfg(18, RESNETS__OUT_FEATURES=["res3"])), "res4")


def test_convolutions_start_with_msra_fill() -> None:
    """Weights are drawn from N(0, 2 / (k * k * c_out)), to 5 standard errors of the sample's deviation."""
    for name, p in build_trunk(make_cfg(18)).named_parameters():
        if p.dim() == 4:
            expected = math.sqrt(2 / (p.shape[0] * p.shape[2] * p.shape[3]))
            assert p.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * p.numel())), name


# ------------------------------------------------------------------ freezing


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_freezing(norm: str) -> None:
    trunk = build_trunk(make_cfg(18, BACKBONE__FREEZE_AT=3, RESNETS__NORM=norm)).train()
    for name, parameter in trunk.named_parameters():
        assert parameter.requires_grad == name.startswith(("res4", "res5")), name
    frozen = [type(m) for n, m in trunk.named_modules() if "norm" in n and n.startswith(("stem", "res2", "res3"))]
    assert set(frozen) == {FrozenBatchNorm2d if norm == "BN" else GroupNorm}
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    sum(x.square().mean() for x in trunk(torch.rand(2, 3, 64, 64)).values()).backward()
    changed = {k.split(".")[0] for k, v in trunk.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == ({"res4", "res5"} if norm == "BN" else set())


def test_frozen_norms_keep_the_batch_norms_function() -> None:
    plain, frozen = build_trunk(make_cfg(18)).eval(), build_trunk(make_cfg(18, RESNETS__NORM="FrozenBN"))
    randomise(plain)
    frozen.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        a, b = plain(x)["res5"], frozen(x)["res5"]
        plain.freeze(5)
        c = plain(x)["res5"]
    assert (a - b).abs().max() <= 1e-5 * a.abs().max() and torch.equal(b, c)


def test_frozen_norms_without_statistics_are_pointed_out() -> None:
    trunk = build_trunk(make_cfg(18, RESNETS__NORM="FrozenBN", ESD__ENABLED=True))
    names = set(trunk.state_dict())
    assert frozen_norm_warning(trunk, names) is None
    assert "diverge" in frozen_norm_warning(trunk, ())
    part = frozen_norm_warning(trunk, {n for n in names if "esd" not in n})
    assert "stem.esd.dense.norm" in part and "res2" not in part
    assert frozen_norm_warning(build_trunk(make_cfg(18)), ()) is None


# ------------------------------------------------------------------ ESD


def esd(depth: int, **overrides: Any) -> ResNet:
    return build_trunk(make_cfg(depth, ESD__ENABLED=True, **overrides))


@pytest.mark.parametrize(("depth", "stages_2"), [(18, 688_128), (34, 688_128), (50, 1_032_192), (101, 1_032_192)])
def test_esd_extra_parameters(depth: int, stages_2: int) -> None:
    plain = count(build_trunk(make_cfg(depth)))
    assert count(esd(depth, ESD__STEM="none", ESD__MODE=1)) - plain == 0
    assert count(esd(depth, ESD__STEM="none", ESD__MODE=2)) - plain == stages_2
    assert count(esd(depth, ESD__STAGES=(), ESD__MODE=1)) - plain == 36_992
    assert count(esd(depth, ESD__STAGES=(), ESD__MODE=2)) - plain == 49_280
    light = depth < 50
    assert count(esd(depth)) - plain == (36_992 if light else 49_280 + stages_2)  # MODE 0: by depth


@pytest.mark.parametrize("depth", [18, 50])
def test_dense_identity_starts_as_the_plain_resnet(depth: int, tmp_path: Path) -> None:
    plain = build_trunk(make_cfg(depth))
    randomise(plain)
    torch.save({"model": plain.state_dict()}, tmp_path / "w.pth")
    # FUSE_INIT "auto" means dense_identity when there are weights to load.
    ours = esd(depth, ESD__STEM="none", ESD__MODE=2, WEIGHTS="w.pth")
    checkpointer = Checkpointer(ours)
    checkpointer.load(tmp_path / "w.pth")
    assert checkpointer.report.missing == {f"{stage}.0.fuse.weight" for stage in STAGES[1:]}
    x = torch.rand(2, 3, 65, 97)
    for mode in (True, False):
        expected, found = plain.train(mode)(x), ours.train(mode)(x)
        for name in STAGES:
            scale = expected[name].abs().max()
            assert (found[name] - expected[name]).abs().max() <= 1e-6 * scale, name


def test_fuse_init() -> None:
    def first_is_identity(**overrides: Any) -> bool:
        weight = esd(18, ESD__MODE=2, **overrides).res3[0].fuse.weight[:, :, 0, 0]
        return torch.equal(weight, torch.cat((torch.zeros(128, 128), torch.eye(128)), 1))

    assert not first_is_identity()
    assert first_is_identity(WEIGHTS="R-18.pkl")
    assert first_is_identity(ESD__FUSE_INIT="dense_identity")
    assert not first_is_identity(ESD__FUSE_INIT="default", WEIGHTS="R-18.pkl")


def _views(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute G and M of a map of even size by unfolding 4x4 windows."""
    n, c, h, w = x.shape
    zeros, lowest = (F.pad(x, (1, 1, 1, 1), value=v).unfold(2, 4, 2).unfold(3, 4, 2) for v in (0.0, -math.inf))
    assert zeros.shape == (n, c, h // 2, w // 2, 4, 4)
    return zeros.sum((4, 5)) / 16, lowest.amax((4, 5))


@pytest.mark.parametrize("shortcut", ["strided", "avg"])
@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("depth", [18, 50])
def test_esd_block_by_definition(depth: int, mode: int, shortcut: str) -> None:
    trunk = esd(depth, ESD__MODE=mode, ESD__SHORTCUT=shortcut, ESD__STEM="none").eval()
    randomise(trunk)
    block = trunk.res3[0]
    x = torch.rand(1, block.shortcut.in_channels, 12, 16)
    with torch.no_grad():
        if depth == 18:
            u, dense, rest = x, block.conv1, block.conv2
        else:
            u, dense, rest = block.conv1(x), block.conv2, block.conv3
        g, m = _views(u)
        d = dense.norm(F.conv2d(u, dense.weight, stride=2, padding=1)).relu()
        if mode == 2:
            v = F.conv2d(torch.cat((g, m, d), 1), block.fuse.weight)
        else:
            v = torch.cat((g, m), 1) + d if depth == 18 else g + m + d
        if shortcut == "avg":
            s = block.shortcut.norm(F.conv2d(_views(x)[0], block.shortcut.weight))
        else:
            s = block.shortcut.norm(F.conv2d(x, block.shortcut.weight, stride=2))
        torch.testing.assert_close(block(x), (rest(v) + s).relu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stem", ["pool", "none", "deep"])
def test_esd_keeps_strides_and_channels(stem: str) -> None:
    trunk = esd(50, ESD__STEM=stem)
    assert trunk.output_shape() == build_trunk(make_cfg(50)).output_shape()
    maps = trunk(torch.rand(1, 3, 61, 99))
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(16, 25), (8, 13), (4, 7), (2, 4)]
    if stem == "deep":
        assert trunk.stem.conv1.weight.shape == (32, 3, 3, 3) and trunk.stem.conv1.stride == (1, 1)


@pytest.mark.parametrize(("freeze_at", "stem"), [(1, "pool"), (2, "deep"), (4, "none")])
def test_new_parts_under_frozen_stages_train_and_are_pointed_out(
    freeze_at: int, stem: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trunk = esd(50, ESD__STEM=stem, BACKBONE__FREEZE_AT=freeze_at).train()
    frozen = ("stem.", *(f"{s}." for s in STAGES[: freeze_at - 1]))
    new = {n for n, _ in trunk.named_parameters() if ".esd." in n or ".fuse." in n or (stem == "deep" and "stem" in n)}
    for name, parameter in trunk.named_parameters():
        assert parameter.requires_grad == (name in new or not name.startswith(frozen)), name
    assert f"freeze_at is {freeze_at}" in caplog.text
    assert {"pool": "stem.esd", "deep": "stem.conv1, stem.esd", "none": "res3.0.fuse, res4.0.fuse"}[stem] in caplog.text
    trunk(torch.rand(2, 3, 64, 64))["res5"].sum().backward()
    assert all(p.grad is not None for n, p in trunk.named_parameters() if n in new)


def test_esd_moves_the_stride_to_the_3x3_conv(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        trunk = esd(50, RESNETS__STRIDE_IN_1X1=True, ESD__STAGES=("res3", "res5"))
    assert "stride_in_1x1" in caplog.text and "res3, res5" in caplog.text
    assert [trunk.res3[0].conv1.stride, trunk.res3[0].conv2.stride] == [(1, 1), (2, 2)]
    assert [trunk.res4[0].conv1.stride, trunk.res4[0].conv2.stride] == [(2, 2), (1, 1)]


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("depth", "overrides", "message"),
    [
        (20, {}, r"MODEL\.RESNETS\.DEPTH: unknown value 20"),
        (18, dict(RESNETS__RES2_OUT_CHANNELS=256), "RES2_OUT_CHANNELS: a ResNet-18 needs 64, found 256"),
        (34, dict(RESNETS__NUM_GROUPS=32), "NUM_GROUPS: a ResNet-34 needs 1, found 32"),
        (18, dict(RESNETS__RES5_DILATION=2), "RES5_DILATION: a ResNet-18 needs 1, found 2"),
        (50, dict(RESNETS__RES5_DILATION=4), "RES5_DILATION: unknown value 4"),
        (50, dict(RESNETS__DEFORM_ON_PER_STAGE=[False, True, True, True]), "DEFORM_ON_PER_STAGE: .*no deformable"),
        (50, dict(RESNETS__OUT_FEATURES=["res2", "ress3"]), "OUT_FEATURES: unknown value 'ress3'; did you mean 'res3'"),
        (50, dict(RESNETS__OUT_FEATURES=[]), "OUT_FEATURES: expected at least one of .*found none"),
        (50, dict(RESNETS__NORM="FrozenBn"), "FrozenBn.*did you mean 'FrozenBN'"),
        (50, dict(BACKBONE__FREEZE_AT=6), "FREEZE_AT: unknown value 6"),
        (50, dict(ESD__ENABLED=True, ESD__STEM="pol"), r"MODEL\.ESD\.STEM: unknown value 'pol'; did you mean 'pool'"),
        (50, dict(ESD__ENABLED=True, ESD__STAGES=("res2",)), r"MODEL\.ESD\.STAGES: unknown value 'res2'"),
        (50, dict(ESD__ENABLED=True, RESNETS__RES5_DILATION=2), "leave res5 out"),
        (50, dict(ESD__ENABLED=True, ESD__MODE=3), r"MODEL\.ESD\.MODE: unknown value 3"),
    ],
)
def test_values_that_do_not_fit(depth: int, overrides: dict[str, Any], message: str) -> None:
    cfg = make_cfg(50, **overrides)
    cfg.MODEL.RESNETS.DEPTH = depth
    if depth < 50 and "RESNETS__RES2_OUT_CHANNELS" not in overrides:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    with pytest.raises(UserError, match=message):
        build_trunk(cfg)


def test_backbone_names_and_features_that_do_not_fit() -> None:
    cfg = fpn_cfg(18)
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res6"]
    with pytest.raises(UserError, match=r"^MODEL\.FPN\.IN_FEATURES: the trunk has no output 'res6'; did you mean"):
        build_backbone(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_sn2_snii_backbone"
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE\.NAME.*did you mean 'build_sn2_sni_backbone'"):
        build_backbone(cfg)


# ------------------------------------------------------------------ against Detectron2 itself


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("depth", "overrides"),
    [
        (18, {}),
        (50, dict(RESNETS__STRIDE_IN_1X1=True, RESNETS__NORM="FrozenBN", BACKBONE__FREEZE_AT=2)),
        (50, dict(RESNETS__NORM="GN", RESNETS__NUM_GROUPS=8, RESNETS__WIDTH_PER_GROUP=8)),
        (50, dict(RESNETS__RES5_DILATION=2, RESNETS__RES2_OUT_CHANNELS=128, BACKBONE__FREEZE_AT=1)),
    ],
)
def test_maps_and_gradients_are_detectron2s(depth: int, overrides: dict[str, Any]) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.config import get_cfg as get_d2_cfg
    from detectron2.modeling import build_backbone as build_d2_backbone

    cfg, theirs_cfg = make_cfg(depth, **overrides), get_d2_cfg()
    theirs_cfg.MODEL.RESNETS.update(cfg.MODEL.RESNETS)
    theirs_cfg.MODEL.BACKBONE.FREEZE_AT = cfg.MODEL.BACKBONE.FREEZE_AT
    theirs, ours = build_d2_backbone(theirs_cfg).double(), build_trunk(cfg).double()
    randomise(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    maps, expected = ours(x), theirs(x)
    for name in STAGES:
        assert (maps[name] - expected[name]).abs().max() <= 1e-10 * expected[name].abs().max(), name
    for out in (maps, expected):
        sum(m.square().mean() for m in out.values()).backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters()):
        assert a.requires_grad == b.requires_grad, name
        if b.grad is not None:
            assert (a.grad - b.grad).norm() <= 1e-8 * b.grad.norm() + 1e-12, name


@pytest.mark.detectron2
@pytest.mark.parametrize("freeze_at", range(6))
@pytest.mark.parametrize("norm", ["", "BN", "SyncBN", "FrozenBN", "GN"])
def test_names_and_trainability_are_detectron2s_for_every_norm(norm: str, freeze_at: int) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.config import get_cfg as get_d2_cfg
    from detectron2.modeling import build_backbone as build_d2_backbone

    for depth in (18, 50):
        cfg, theirs_cfg = make_cfg(depth, RESNETS__NORM=norm, BACKBONE__FREEZE_AT=freeze_at), get_d2_cfg()
        theirs_cfg.MODEL.RESNETS.update(cfg.MODEL.RESNETS)
        theirs_cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
        ours, theirs = build_trunk(cfg), build_d2_backbone(theirs_cfg)
        shapes = [{n: (t.shape, t.dtype) for n, t in m.state_dict().items()} for m in (ours, theirs)]
        assert shapes[0] == shapes[1]
        trainable = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (ours, theirs)]
        assert trainable[0] == trainable[1]
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())


def test_old_checkpoints_without_counters_of_frozen_norms_load() -> None:
    trunk = build_trunk(make_cfg(18, BACKBONE__FREEZE_AT=2))
    state = trunk.state_dict()
    counters = {n for n in state if n.startswith(("stem", "res2")) and n.endswith("num_batches_tracked")}
    assert len(counters) == 5  # Detectron2 keeps them as well
    old = {n: t for n, t in state.items() if n not in counters}
    assert trunk.load_state_dict(old) == ([], [])
    assert counters.isdisjoint(old)  # the caller's dict stays as it was


def test_convolutions_without_norms_have_no_biases() -> None:
    names = build_trunk(make_cfg(50, RESNETS__NORM="")).state_dict()
    assert names and all(name.endswith("weight") for name in names)
