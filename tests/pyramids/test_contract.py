"""What every registered pyramid promises; a new one is picked up from the registry by itself."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.pyramids import PYRAMIDS, Pyramid, pyramid_from_backbone_name
from sn2fpn.structures import ShapeSpec

CHANNELS = (8, 12, 16, 24)
TRUNK = {f"res{i}": ShapeSpec(channels=c, stride=2**i) for i, c in enumerate(CHANNELS, start=2)}
# Further settings to hold to the contract beside each entry's defaults.
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
over_the_registry = pytest.mark.parametrize(
    ("name", "overrides"), CASES, ids=["-".join([n, *(str(v) for v in o[1::2])]) for n, o in CASES]
)


def build(name: str, overrides: list) -> Pyramid:
    torch.manual_seed(0)
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.FPN.IN_FEATURES", list(TRUNK), *overrides])
    return pyramid_from_backbone_name(f"build_sn2_{name}_backbone")(cfg, TRUNK)


def maps(height: int, width: int, batch: int = 1) -> dict[str, Tensor]:
    """Maps as a trunk makes them from an image of height x width: each halving rounds up."""
    return {
        name: torch.randn(batch, s.channels, math.ceil(height / s.stride), math.ceil(width / s.stride))
        for name, s in TRUNK.items()
    }


@over_the_registry
@pytest.mark.parametrize("size", [(128, 192), (131, 93), (33, 64)])
def test_output_shape_tells_the_truth(name: str, overrides: list, size: tuple[int, int]) -> None:
    pyramid = build(name, overrides)
    features = maps(*size, batch=2)
    kept = {k: v.clone() for k, v in features.items()}
    outputs = pyramid(features)
    described = pyramid.output_shape()
    assert list(outputs) == list(described) == ["p2", "p3", "p4", "p5", "p6"]
    for key, spec in described.items():
        expected = (2, spec.channels, *(math.ceil(side / spec.stride) for side in size))
        assert tuple(outputs[key].shape) == expected
    assert pyramid.size_divisibility == 32
    assert all(torch.equal(features[k], kept[k]) for k in kept)  # the trunk's maps are left alone


@over_the_registry
def test_gradient_reaches_every_parameter_and_input(name: str, overrides: list) -> None:
    pyramid = build(name, overrides)
    for parameter in pyramid.parameters():
        if not parameter.any():  # what starts at zero, such as offsets, would hide what lies before it
            nn.init.normal_(parameter, std=0.1)
    features = {k: v.requires_grad_() for k, v in maps(96, 64, batch=2).items()}
    outputs = pyramid(features)
    sum((p * torch.randn_like(p)).sum() for p in outputs.values()).backward()
    for key, tensor in [*pyramid.named_parameters(), *features.items()]:
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.any(), key


@over_the_registry
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_mixed_precision_stays_close(name: str, overrides: list, dtype: torch.dtype, limit: float) -> None:
    pyramid = build(name, overrides)
    features = maps(96, 65, batch=2)
    with torch.autocast("cpu", dtype):
        outputs = pyramid(features)
        loss = sum(p.float().square().mean() for p in outputs.values())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in pyramid.parameters())
    for key, expected in pyramid(features).items():
        assert outputs[key].dtype == dtype
        assert (outputs[key] - expected).norm() < limit * expected.norm()


@over_the_registry
def test_compiles_without_graph_break(name: str, overrides: list) -> None:
    torch.compiler.reset()
    pyramid = build(name, overrides).eval()
    compiled = torch.compile(pyramid, fullgraph=True, backend="aot_eager")
    features = maps(64, 65)
    for key, expected in pyramid(features).items():
        assert torch.allclose(compiled(features)[key], expected, atol=1e-5)
    sum(p.sum() for p in compiled(features).values()).backward()


@over_the_registry
def test_memory_formats_agree(name: str, overrides: list) -> None:
    pyramid = build(name, overrides).eval()
    features = maps(96, 65, batch=2)
    expected = pyramid(features)
    last = {k: v.contiguous(memory_format=torch.channels_last) for k, v in features.items()}
    for key, found in pyramid.to(memory_format=torch.channels_last)(last).items():
        assert torch.allclose(found, expected[key], atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last)  # no conversion on the way to the heads


def test_two_processes_share_gradients_and_leave_no_parameter_unused(tmp_path: Path) -> None:
    """All pyramids in one start of the processes; DDP itself refuses a second step after an unused parameter."""
    mp.spawn(_one_of_two, args=(str(tmp_path / "meet"),), nprocs=2)


def _one_of_two(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for name, overrides in CASES:
        pyramid = build(name, overrides)
        parallel = nn.parallel.DistributedDataParallel(pyramid)
        torch.manual_seed(rank)
        for _ in range(2):
            pyramid.zero_grad()
            sum(p.square().mean() for p in parallel(maps(64, 33, batch=2)).values()).backward()
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
            return maps(*images.shape[2:])

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
    ("shape", "keys", "words"),
    [
        (TRUNK, ["res2", "res6"], "the trunk has no output 'res6'; did you mean 'res"),
        (TRUNK, ["res2", "res4"], r"strides double, fine to coarse; found \{'res2': 4, 'res4': 16\}"),
        (TRUNK, ["res5", "res4"], "strides double"),
        ({}, [], "strides double"),
    ],
)
def test_inputs_that_make_no_pyramid(shape: dict, keys: list[str], words: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.FPN.IN_FEATURES = keys
    with pytest.raises(UserError, match=words):
        PYRAMIDS.get("fpn")(cfg, shape)


def test_missing_map_is_named() -> None:
    features = maps(64, 64)
    del features["res3"]
    with pytest.raises(ValueError, match=r"missing: \['res3'\]"):
        build("fpn", [])(features)


def test_backbone_names() -> None:
    assert pyramid_from_backbone_name("build_resnet_fpn_backbone") is PYRAMIDS.get("fpn")
    for found, words in [
        ("build_sn2_sna_backbone", "did you mean 'build_sn2_sni_backbone'"),
        ("sni", "did you mean 'build_sn2_sni_backbone'"),
        ("vit", "choose from"),
    ]:
        with pytest.raises(UserError, match=f"MODEL.BACKBONE.NAME: unknown backbone '{found}'; {words}"):
            pyramid_from_backbone_name(found)


# ------------------------------------------------------------------ RetinaNet's p6 and p7


@pytest.mark.parametrize("name", PYRAMIDS)
def test_retinanet_backbones_have_p6_and_p7_from_the_trunk(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]])
    pyramid = pyramid_from_backbone_name(f"build_sn2_{name}_retinanet_backbone")(cfg, TRUNK)
    features = maps(135, 200)
    made: list[Tensor] = []  # before a pyramid in which they take part refines them
    if pyramid.top_block is not None:
        pyramid.top_block.register_forward_hook(lambda *call: made.extend(call[-1]))
    outputs = pyramid(features)
    assert list(outputs) == list(pyramid.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]
    assert outputs["p7"].shape == (1, 16, 2, 2)
    assert pyramid.size_divisibility == 32
    if pyramid.top_block is None:  # fuses the two itself, as BiFPN
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
    outputs = pyramid(maps(64, 96))
    assert torch.allclose(outputs["p6"], pyramid.top_block.p6(outputs["p5"]), atol=1e-5)
    for source in ("res4", "res7"):
        with pytest.raises(UserError, match=f"p6 and p7 need '{source}' with stride 32"):
            pyramid.add_p6_p7(source)
