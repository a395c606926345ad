"""The promises of every registered pyramid, in every setting and with every kind of upsampling.

A new pyramid is picked up from the registry by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.pyramids import FPN, PYRAMIDS, Pyramid, pyramid_from_backbone_name
from sn2fpn.pyramids.checks import PROMISES, TRUNK, check_compilation, trunk_maps
from sn2fpn.structures import ShapeSpec

# Further settings that are tested beside the defaults of each pyramid.
VARIANTS = {
    "fpn": [["MODEL.FPN.FUSE_TYPE", "avg"], ["MODEL.FPN.NORM", "BN"]],
    "sni": [
        ["MODEL.SNI.MODE", "authors_rcnn"],
        ["MODEL.SNI.ORDER", "pass_smoothed", "MODEL.SNI.INTERP", "bilinear", "MODEL.SNI.ALPHA", 0.5],
        ["MODEL.SNI.ALPHA", "learned"],
    ],
    "ihp": [["MODEL.IHP.FILTER", name] for name in ("gsconve", "conv3x3", "bottleneck")]
    + [["MODEL.IHP.NORM", "", "MODEL.IHP.AUX_KERNEL", 1]],
    "pafpn": [["MODEL.PAFPN.VARIANT", "openmmlab", "MODEL.PAFPN.UPSAMPLE", "sni"]],
    "sapan": [["MODEL.SAPAN.DOWN", name] for name in ("esd2", "gsconve1", "conv")]
    + [["MODEL.SAPAN.NORM", "", "MODEL.SAPAN.VARIANT", "openmmlab", "MODEL.SAPAN.UPSAMPLE", "nearest"]],
    "bifpn": [
        ["MODEL.BIFPN.NUM_CELLS", 1, *options]
        for options in (
            ["MODEL.BIFPN.FUSION", "softmax", "MODEL.BIFPN.DOWN_PAD", "tf_same", "MODEL.BIFPN.PER_EDGE_PROJ", True],
            ["MODEL.BIFPN.FUSION", "sum", "MODEL.BIFPN.SEPARABLE", False, "MODEL.BIFPN.UPSAMPLE", "sni"],
            ["MODEL.BIFPN.NORM", ""],
        )
    ],
    "pconv": [
        ["MODEL.PCONV.DEFORM", "all", "MODEL.PCONV.EXTRA_CONV", True, "MODEL.PCONV.NUM", 1],
        ["MODEL.PCONV.LEVELS", ("p3", "p4"), "MODEL.PCONV.UPSAMPLE", "sni", "MODEL.PCONV.IBN", False],
    ],
    "gfpn": [
        ["MODEL.GFPN.UPSAMPLE", "sni", "MODEL.GFPN.SEPARABLE", True],
        ["MODEL.GFPN.SKIP", "dense", "MODEL.GFPN.NORM", ""],
    ],
    "fapn": [
        ["MODEL.FAPN.FSM", False, "MODEL.FPN.NORM", "BN", "MODEL.FAPN.UPSAMPLE", "sni"],
        ["MODEL.FAPN.ALIGN", "none"],
    ],
}
CASES = [(name, overrides) for name in PYRAMIDS for overrides in [[], *VARIANTS.get(name, [])]]
KINDS = (
    "nearest",
    "bilinear",
    "bilinear_corners",
    "sni",
    "sni:0.5",
    "sni:learned",
    "deconv",
    "carafe",
    "dysample",
    "dysample:dyscope",
)
LEARNED = KINDS[-5:]
UPSAMPLE_CASES = [
    (name, [f"MODEL.{name.upper()}.UPSAMPLE", kind])
    for name in PYRAMIDS
    for kind in KINDS
    if get_cfg().MODEL[name.upper()].get("UPSAMPLE", kind) != kind  # CASES contains the default.
]
COMPILED = [("fpn", []), ("sni", [])]
COMPILED_SLOWLY = [case for case in CASES if case not in COMPILED]
COMPILED_SLOWLY += [("fpn", ["MODEL.FPN.UPSAMPLE", kind]) for kind in LEARNED]


def over(cases: list[tuple[str, list]]) -> pytest.MarkDecorator:
    ids = ["-".join([name, *(str(v) for v in overrides[1::2])]) for name, overrides in cases]
    return pytest.mark.parametrize(("name", "overrides"), cases, ids=ids)


def build(name: str, overrides: list) -> Pyramid:
    torch.manual_seed(0)
    cfg = get_cfg()
    small = ["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.GFPN.INNER_CHANNELS", 32, "MODEL.FPN.IN_FEATURES", list(TRUNK)]
    cfg.merge_from_list([*small, *overrides])
    return pyramid_from_backbone_name(f"build_sn2_{name}_backbone")(cfg, TRUNK)


@over([*CASES, *UPSAMPLE_CASES])
@pytest.mark.parametrize("promise", [p for p in PROMISES if p is not check_compilation], ids=lambda p: p.__name__)
def test_promises(promise: Callable[[Pyramid], None], name: str, overrides: list) -> None:
    promise(build(name, overrides))


@over(COMPILED)
def test_compiles_without_graph_break(name: str, overrides: list) -> None:
    check_compilation(build(name, overrides))


@pytest.mark.slow
@over(COMPILED_SLOWLY)
def test_further_settings_compile_without_graph_break(name: str, overrides: list) -> None:
    check_compilation(build(name, overrides))


@over(CASES)
def test_names_and_types_of_the_outputs(name: str, overrides: list) -> None:
    pyramid = build(name, overrides)
    assert list(pyramid.output_shape()) == ["p2", "p3", "p4", "p5", "p6"] and pyramid.size_divisibility == 32
    with torch.autocast("cpu", torch.bfloat16):
        assert {p.dtype for p in pyramid(trunk_maps((64, 64))).values()} == {torch.bfloat16}


@over(UPSAMPLE_CASES)
def test_upsampling_adds_parameters_only_where_it_learns(name: str, overrides: list) -> None:
    added = set(build(name, overrides).state_dict()) - set(build(name, []).state_dict())
    assert bool(added) is (overrides[1] in LEARNED)
    assert all("upsample" in key for key in added)


@pytest.mark.slow
def test_two_processes_share_gradients_and_leave_no_parameter_unused(tmp_path: Path) -> None:
    """One start of the processes serves all pyramids. DDP itself refuses a second step after an unused parameter."""
    mp.spawn(_one_of_two, args=(str(tmp_path / "meet"),), nprocs=2)


def _one_of_two(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for name, overrides in [*CASES, *UPSAMPLE_CASES]:
        pyramid = build(name, overrides)
        parallel = nn.parallel.DistributedDataParallel(pyramid)
        torch.manual_seed(rank)
        for _ in range(2):
            pyramid.zero_grad()
            sum(p.square().mean() for p in parallel(trunk_maps((64, 33))).values()).backward()
        mine = torch.cat([p.grad.flatten() for p in pyramid.parameters()])
        both = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(both, mine)
        assert mine.any() and torch.equal(*both), (name, overrides)
    dist.barrier()
    dist.destroy_process_group()


def test_an_attached_trunk_gives_detectron2s_names_and_takes_images() -> None:
    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return trunk_maps(images.shape[2:], batch=1)

    pyramid = build("sni", [])
    with pytest.raises(ValueError, match="dict of maps"):
        pyramid(torch.randn(1, 3, 64, 64))
    pyramid.bottom_up = Trunk()
    assert pyramid(torch.randn(1, 3, 64, 96))["p2"].shape == (1, 16, 16, 24)
    names = set(pyramid.state_dict())
    assert {"bottom_up.stem.weight", "fpn_lateral2.weight", "fpn_output5.bias"} <= names


def test_any_consecutive_levels_and_other_trunks() -> None:
    for name in PYRAMIDS:
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8])
        shape = {"c4": ShapeSpec(channels=6, stride=16), "c5": ShapeSpec(channels=7, stride=32)}
        pyramid = PYRAMIDS.get(name)(cfg, shape)
        out = pyramid({"c4": torch.randn(1, 6, 9, 7), "c5": torch.randn(1, 7, 5, 4)})
        assert {k: tuple(v.shape[2:]) for k, v in out.items()} == {"p4": (9, 7), "p5": (5, 4), "p6": (3, 2)}


@pytest.mark.parametrize(
    ("shape", "names", "argument", "words"),
    [
        (TRUNK, ["res2", "res6"], "in_features", "the trunk has no output 'res6'; did you mean 'res"),
        (TRUNK, ["res2", "res4"], "in_features", r"coarse, found \{'res2': 4, 'res4': 16\}"),
        (TRUNK, ["res5", "res4"], "in_features", "and double"),
        ({}, [], "input_shape", "at least one map"),
        ({"c": ShapeSpec(channels=4, stride=6)}, [], "input_shape", "powers of two"),
    ],
)
def test_inputs_that_make_no_pyramid(shape: dict, names: list[str], argument: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{argument}: .*{words}"):
        FPN(shape, in_features=names)
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = names
    key = {"in_features": "MODEL.FPN.IN_FEATURES", "input_shape": "MODEL.RESNETS.OUT_FEATURES"}[argument]
    with pytest.raises(UserError, match=f"^{key}: .*{words}"):
        PYRAMIDS.get("fpn")(cfg, shape)


def test_no_inputs_at_all() -> None:
    with pytest.raises(ArgumentError, match=r"^input_shape: expected the channels of a trunk's maps"):
        FPN()


def test_missing_map_is_named() -> None:
    features = trunk_maps((64, 64))
    del features["res3"]
    with pytest.raises(ValueError, match=r"missing: \['res3'\]"):
        build("fpn", [])(features)


def test_backbone_names() -> None:
    assert pyramid_from_backbone_name("build_resnet_fpn_backbone") is PYRAMIDS.get("fpn")
    for found, words in [
        ("build_sn2_sna_backbone", "did you mean 'build_sn2_sni_backbone'"),
        ("build_sn2_snu_backbone", r".*\? \(--import names the file of a pyramid of your own\)$"),
        ("sni", r"did you mean 'build_sn2_sni_backbone'\?$"),
        ("vit", r"choose from.* in all\) \(--import names the file of a pyramid of your own\)$"),
    ]:
        with pytest.raises(UserError, match=f"MODEL.BACKBONE.NAME: unknown backbone '{found}'; {words}"):
            pyramid_from_backbone_name(found)


# ------------------------------------------------------------------ RetinaNet's p6 and p7


@pytest.mark.parametrize("name", PYRAMIDS)
def test_retinanet_backbones_have_p6_and_p7_from_the_trunk(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]])
    pyramid = pyramid_from_backbone_name(f"build_sn2_{name}_retinanet_backbone")(cfg, TRUNK)
    features = trunk_maps((135, 200), batch=1)
    made: list[Tensor] = []  # The two maps before `refine` changes them.
    if pyramid.top_block is not None:
        pyramid.top_block.register_forward_hook(lambda *call: made.extend(call[-1]))
    outputs = pyramid(features)
    assert list(outputs) == list(pyramid.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]
    assert outputs["p7"].shape == (1, 16, 2, 2)
    assert pyramid.size_divisibility == 32
    if pyramid.top_block is None:  # BiFPN makes the two levels itself.
        return
    conv = torch.nn.functional.conv2d
    p6, p7 = pyramid.top_block.p6, pyramid.top_block.p7
    expected = conv(features["res5"], p6.weight, p6.bias, stride=2, padding=1)
    assert torch.allclose(made[0], expected, atol=1e-5)
    expected = conv(expected.relu(), p7.weight, p7.bias, stride=2, padding=1)
    assert torch.allclose(made[1], expected, atol=1e-5)
    if type(pyramid).refine is Pyramid.refine:
        assert torch.equal(outputs["p6"], made[0]) and torch.equal(outputs["p7"], made[1])


def test_p6_from_p5_and_from_what_is_not_there() -> None:
    pyramid = build("fpn", [])
    pyramid.add_p6_p7("p5")
    outputs = pyramid(trunk_maps((64, 96)))
    assert torch.allclose(outputs["p6"], pyramid.top_block.p6(outputs["p5"]), atol=1e-5)
    for source in ("res4", "res7"):
        with pytest.raises(ArgumentError, match=f"^source: p6 and p7 need a map '{source}' with the stride 32"):
            pyramid.add_p6_p7(source)
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4"]
    with pytest.raises(UserError, match=r"^MODEL.FPN.IN_FEATURES: p6 and p7 need a map 'res5' with the stride 16"):
        pyramid_from_backbone_name("build_sn2_fpn_retinanet_backbone")(cfg, TRUNK)
