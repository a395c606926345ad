"""Tests of BiFPN: the golden of two cells, every option against an independent form of one cell, and counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden_modules import count_parameters, load_case
from sn2fpn.config import get_cfg
from sn2fpn.errors import ArgumentError
from sn2fpn.pyramids import FPN, PYRAMIDS, BiFPN

RESNET50 = (256, 512, 1024, 2048)
# The inputs of each node on the levels 2 to 6; "up" and "down" say how a neighbour gets the node's size.
GRAPH = {
    "top_down5": ["in5", "up in6"],
    "top_down4": ["in4", "up top_down5"],
    "top_down3": ["in3", "up top_down4"],
    "output2": ["in2", "up top_down3"],
    "output3": ["in3", "top_down3", "down output2"],
    "output4": ["in4", "top_down4", "down output3"],
    "output5": ["in5", "top_down5", "down output4"],
    "output6": ["in6", "down output5"],
}


def odd_maps(channels: tuple[int, ...] = (3, 4, 5, 6), start: tuple[int, int] = (33, 46)) -> dict[str, Tensor]:
    sizes = [start]
    for _ in channels[1:]:
        sizes.append(tuple(math.ceil(side / 2) for side in sizes[-1]))
    return {f"res{i}": torch.randn(2, c, *size) for i, (c, size) in enumerate(zip(channels, sizes), 2)}


def test_golden() -> None:
    case = load_case("bifpn_cells")
    pyramid = BiFPN(case.hyper["in_channels"], case.hyper["width"], num_cells=case.hyper["cells"]).eval()
    names = {f"proj{i}": f"bifpn_lateral{i}" for i in (2, 3, 4, 5, 6)}
    for k in (1, 2):
        for node in case.hyper["graph"]:
            ours = f"bifpn_cell{k}.{node.replace('A', 'top_down').replace('O', 'output')}"
            parts = {"": "", "_depthwise": ".depthwise", "_pointwise": ".pointwise", "_bn": ".pointwise.norm"}
            names |= {f"cell{k}_{node}{theirs}": ours + part for theirs, part in parts.items()}
    case.load_into(pyramid, names)
    assert any((edges < 0).any() for role, edges in case.weights.items() if role.endswith("edges"))
    case.check(pyramid({f"res{i}": case.inputs[f"c{i}"] for i in (2, 3, 4, 5)}))


OPTIONS = [
    {"fusion": "softmax"},
    {"fusion": "sum"},
    {"separable": False},
    {"down_pad": "tf_same"},
    {"upsample": "sni"},
    {"per_edge_proj": True},
    {},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_match_the_graph(options: dict) -> None:
    pyramid = BiFPN([3, 4, 5, 6], 8, num_cells=1, **options).eval()
    cell, maps = pyramid.bifpn_cell1, odd_maps()
    with torch.no_grad():
        for name, p in pyramid.named_parameters():
            if name.endswith("edges"):
                p.copy_(torch.randn_like(p))

    def down(x: Tensor) -> Tensor:
        (h, w), tf = x.shape[2:], options.get("down_pad") == "tf_same"
        left, top = (0 if tf and side % 2 == 0 else 1 for side in (w, h))
        return F.max_pool2d(F.pad(x, (left, 1, top, 1), value=-math.inf), 3, 2)

    in6 = down(pyramid.bifpn_lateral6(maps["res5"]))
    values = {f"in{i}": getattr(pyramid, f"bifpn_lateral{i}")(maps[f"res{i}"]) for i in (2, 3, 4, 5)} | {"in6": in6}
    for name, inputs in GRAPH.items():
        node, terms = getattr(cell, name), []
        size = values[inputs[0]].shape[2:]
        for text in inputs:
            how, _, source = text.rpartition(" ")
            x = values[source]
            if how == "up":
                ratio = x[0, 0].numel() / size.numel() if options.get("upsample") == "sni" else 1.0
                x = ratio * F.interpolate(x, size=size)
            elif how == "down":
                x = down(x)
            elif options.get("per_edge_proj") and name[:-1] == "output" and source in ("in3", "in4", "in5"):
                x = getattr(pyramid, f"bifpn_output_lateral{name[-1]}")(maps[f"res{name[-1]}"])
            terms.append(x)
        if options.get("fusion") == "sum":
            factors = torch.ones(len(terms))
        elif options.get("fusion") == "softmax":
            factors = node.edges.exp() / node.edges.exp().sum()
        else:
            factors = node.edges.clamp(min=0) / (node.edges.clamp(min=0).sum() + 1e-4)
        z = sum(f * x for f, x in zip(factors, terms))
        z = z * torch.sigmoid(z)
        if options.get("separable", True):
            y = F.conv2d(z, node.depthwise.weight, padding=1, groups=8)
            y = node.pointwise.norm(F.conv2d(y, node.pointwise.weight, node.pointwise.bias))
        else:
            y = node.dense.norm(F.conv2d(z, node.dense.weight, node.dense.bias, padding=1))
        values[name] = y
    for name, found in pyramid(maps).items():
        expected = values[f"output{name[1]}"]
        assert torch.allclose(found, expected, atol=1e-5 * max(1.0, expected.abs().max().item())), name


def test_an_edge_with_a_negative_scalar_vanishes() -> None:
    pyramid = BiFPN([3, 4, 5, 6], 8, num_cells=1).eval()
    with torch.no_grad():
        pyramid.bifpn_cell1.output2.edges[1] = -0.5  # No other edge leads from coarser levels to p2.
    maps = odd_maps()
    before = pyramid(maps)
    maps["res5"], maps["res3"] = torch.randn_like(maps["res5"]), torch.randn_like(maps["res3"])
    after = pyramid(maps)
    assert [name for name in before if torch.equal(before[name], after[name])] == ["p2"]


@pytest.mark.parametrize(("size", "differs"), [((33, 45), False), ((33, 46), True), ((34, 45), True)])
def test_tf_same_differs_only_on_even_axes(size: tuple[int, int], differs: bool) -> None:
    ours, theirs = (BiFPN([3, 4], 8, num_cells=1, down_pad=pad).eval() for pad in ("same", "tf_same"))
    theirs.load_state_dict(ours.state_dict())
    maps = odd_maps((3, 4), size)
    maps["res3"] = torch.randn(2, 4, 17, 23)  # The size is odd, so that only p2 -> p3 can differ.
    maps = {"res2": maps["res2"], "res3": maps["res3"]}
    a, b = ours(maps), theirs(maps)
    assert torch.equal(a["p3"], b["p3"]) is not differs
    assert torch.equal(a["p2"], b["p2"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 3_157_817),
        ({"per_edge_proj": True}, 4_077_625),
        ({"fusion": "softmax"}, 3_157_817),
        ({"fusion": "sum"}, 3_157_817 - 3 * 19),
        ({"num_cells": 1}, 1_511_168 + 548_883),
        ({"separable": False}, 1_511_168 + 3 * (8 * (9 * 256**2 + 256 + 2 * 256) + 19)),
    ],
)
def test_parameter_counts(options: dict, expected: int) -> None:
    assert count_parameters(BiFPN(RESNET50, **options)) == expected


def test_initialisation() -> None:
    pyramid = BiFPN([8, 16], 256, num_cells=1)
    node = pyramid.bifpn_cell1.output2
    assert node.depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)  # fan-out of one group
    assert node.pointwise.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert node.edges.tolist() == [1.0, 1.0] and node.depthwise.bias is None
    assert not any(m.bias.any() for m in pyramid.modules() if isinstance(m, nn.Conv2d) and m.bias is not None)
    norms = [m for m in pyramid.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((m.eps, m.momentum) == (1e-3, 0.01) for m in norms)


def test_p6_and_p7_of_retinanet_are_fused_too() -> None:
    """As in EfficientDet, In_7 is the pooled In_6, and the cells have one more node each way."""
    pyramid = BiFPN([4, 5, 6], 8, num_cells=2).eval()
    pyramid.add_p6_p7("res4")
    assert pyramid.out_features == ("p2", "p3", "p4", "p5", "p6")
    assert hasattr(pyramid.bifpn_cell2, "top_down5") and pyramid.bifpn_cell2.output5.edges.numel() == 3
    inputs: list[list[Tensor]] = []
    pyramid.bifpn_cell1.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    maps = odd_maps((4, 5, 6))
    outputs = pyramid(maps)
    assert torch.equal(inputs[0][4], F.max_pool2d(inputs[0][3], 3, 2, 1))
    assert [tuple(p.shape[2:]) for p in outputs.values()] == [(33, 46), (17, 23), (9, 12), (5, 6), (3, 3)]
    with pytest.raises(ArgumentError, match=r"^source: .* coarsest map 'res4'; found 'p4'"):
        pyramid.add_p6_p7("p4")


def test_configuration_reaches_the_cells() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.BIFPN.NUM_CELLS", 2, "MODEL.BIFPN.NORM", "GN"])
    cfg.merge_from_list(["MODEL.BIFPN.SEPARABLE", False, "MODEL.BIFPN.FUSION", "sum"])
    pyramid = PYRAMIDS.get("bifpn")(cfg, FPN([4, 8], 4).output_shape())
    assert isinstance(pyramid.bifpn_cell2.output2.dense.norm, nn.GroupNorm)
    assert not hasattr(pyramid, "bifpn_cell3") and not any("edges" in name for name in pyramid.state_dict())


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"fusion": "softmx"}, "unknown value 'softmx'; did you mean 'softmax'"),
        ({"down_pad": "tfsame"}, "unknown value 'tfsame'; did you mean 'tf_same'"),
        ({"upsample": "linear"}, "unknown value 'linear'"),
        ({"num_cells": 0}, "expected a whole number of at least 1, found 0"),
        ({"norm": "bn"}, "unknown .*'bn'; did you mean 'BN'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, words: str) -> None:
    refused("bifpn", BiFPN, option, words)
