"""Tests of GFPN: the golden graph and its values, the counts of links, a node's formula, and counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden_modules import count_parameters, load_case
from sn2fpn.config import get_cfg
from sn2fpn.layers import SNI
from sn2fpn.pyramids import FPN, GFPN, PYRAMIDS, GiraffeGraph, gfpn_links

RESNET50 = (256, 512, 1024, 2048)


def test_golden() -> None:
    case = load_case("gfpn_d2")
    hyper = case.hyper
    graph = GiraffeGraph(hyper["in_channels"], hyper["inner"], hyper["outer"], depth=hyper["depth"]).eval()
    name = "L{}_p{}".format
    assert {name(*n): [name(*i) for i in inputs] for n, inputs in graph.links.items()} == hyper["graph"]
    roles = {}
    for node in hyper["graph"]:
        roles |= {f"{node}_merge": f"{node}.merge", f"{node}_conv": f"{node}.conv", node: f"{node}.conv"}
    case.load_into(graph, roles)
    found = graph([case.inputs[f"p{i}"] for i in range(2, 7)])
    case.check({f"p{i}": y for i, y in enumerate(found, 2)})


def test_links() -> None:
    totals = [sum(map(len, gfpn_links(range(2, 7), depth).values())) for depth in (2, 3, 4, 7)]
    assert totals == [61, 110, 164, 351]
    links = gfpn_links(range(2, 7))
    assert links[3, 4] == [(1, 4), (2, 4), (3, 5), (2, 5), (2, 3)] and links[2, 2] == [(1, 2), (1, 3)]
    for skip in ("log2n", "dense"):
        links = gfpn_links(range(3, 7), 4, skip)
        known = {(0, level) for level in range(3, 7)}
        for node, inputs in links.items():  # A node is read after it was computed, and not twice.
            assert known.issuperset(inputs) and len(set(inputs)) == len(inputs)
            known.add(node)
        assert known - {i for inputs in links.values() for i in inputs} == {(8, level) for level in range(3, 7)}
    assert links[6, 4] == [(t, 4) for t in range(1, 6)] + [(6, 3), (5, 5), (5, 3)]
    assert gfpn_links(range(3, 7), 4)[6, 4] == [(t, 4) for t in (2, 4, 5)] + [(6, 3), (5, 5), (5, 3)]


@pytest.mark.parametrize("upsample", ["nearest", "sni"])
def test_nodes_resize_concatenate_and_convolve(upsample: str) -> None:
    graph = GiraffeGraph([3, 4, 5], 6, 7, upsample=upsample, finest_level=3).eval()
    sizes = {3: (9, 14), 4: (5, 7), 5: (3, 4)}
    values = {(0, level): torch.randn(2, level, *size) for level, size in sizes.items()}
    w = graph.state_dict()
    for (t, level), inputs in graph.links.items():
        maps = []
        for i in inputs:
            x = values[i]
            if i[1] < level:
                x = F.max_pool2d(x, 3, 2, 1)
            elif i[1] > level:
                ratio = x[0, 0].numel() / values[0, level][0, 0].numel()
                x = F.interpolate(x, sizes[level]) * (ratio if upsample == "sni" else 1)
            maps.append(x)
        name = f"L{t}_p{level}"
        y = F.silu(F.conv2d(torch.cat(maps, 1), w[f"{name}.merge.weight"]))
        values[t, level] = getattr(graph, name).conv.norm(F.conv2d(y, w[f"{name}.conv.weight"], padding=1))
    for level, found in zip(sizes, graph([values[0, level] for level in sizes])):
        assert torch.allclose(found, values[4, level], atol=1e-5)


def test_the_graph_runs_over_laterals_and_their_subsample() -> None:
    pyramid = GFPN([2, 3, 4, 5], 8, inner_channels=6).eval()
    maps = {f"res{i}": torch.randn(1, i, 128 >> i, 192 >> i) for i in (2, 3, 4, 5)}
    inputs = pyramid.laterals(list(maps.values()))
    expected = pyramid.gfpn([*inputs, inputs[-1][:, :, ::2, ::2]])
    assert all(torch.allclose(y, e, atol=1e-5) for y, e in zip(pyramid(maps).values(), expected))
    pyramid.add_p6_p7()
    inputs += pyramid.top_block(maps)
    found = pyramid.eval()(maps)
    assert list(found) == ["p2", "p3", "p4", "p5", "p6", "p7"] and hasattr(pyramid.gfpn, "L4_p7")
    assert all(torch.allclose(y, e, atol=1e-5) for y, e in zip(found.values(), pyramid.gfpn(inputs)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 7_445_760),
        ({"inner_channels": 256}, 16_788_480),
        ({"depth": 3, "inner_channels": 256}, 25_903_104),
        ({"depth": 3}, 9_725_696),
        # 9c^2 of each 3x3 convolution becomes 9c + c^2 in 15 nodes of 128 channels and 5 of 256.
        ({"separable": True}, 7_445_760 + 15 * (9 * 128 - 8 * 128**2) + 5 * (9 * 256 - 8 * 256**2)),
        ({"node_norm": ""}, 7_445_760 - 15 * 128 - 5 * 256),
    ],
)
def test_parameters(options: dict, expected: int) -> None:
    assert count_parameters(GFPN(RESNET50, **options)) == expected


def test_initialisation_of_nodes_is_pytorchs() -> None:
    node = GFPN(RESNET50).gfpn.L3_p4
    for conv, fan_in in ((node.merge, 5 * 128), (node.conv, 9 * 128)):
        bound = fan_in**-0.5
        assert bound * 0.99 < conv.weight.abs().max().item() <= bound
    assert node.merge.bias is None and node.conv.bias is None


def test_configuration_reaches_the_graph() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 8, "MODEL.GFPN.INNER_CHANNELS", 4, "MODEL.GFPN.DEPTH", 3])
    cfg.merge_from_list(["MODEL.GFPN.SKIP", "dense", "MODEL.GFPN.SEPARABLE", True, "MODEL.GFPN.UPSAMPLE", "sni"])
    shape = FPN([4, 8], 8).output_shape()
    graph = PYRAMIDS.get("gfpn")(cfg, {name: shape[name] for name in ("p2", "p3")}).gfpn
    assert graph.links == gfpn_links((2, 3, 4), 3, "dense") and isinstance(graph.L5_p2.upsample, SNI)
    assert graph.L5_p3.conv[0].groups == 4 and isinstance(graph.L5_p3.conv[1].norm, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("option", "key", "words"),
    [
        ({"depth": 0}, "", "expected a whole number of at least 1, found 0"),
        ({"skip": "log2"}, "", "unknown value 'log2'; did you mean 'log2n'"),
        ({"upsample": "bilinar"}, "", "unknown value 'bilinar'; did you mean 'bilinear'"),
        ({"node_norm": "bn"}, "MODEL.GFPN.NORM", "unknown .*'bn'; did you mean 'BN'"),
    ],
)
def test_mistakes_are_named(refused: Callable[..., None], option: dict, key: str, words: str) -> None:
    refused("gfpn", GFPN, option, words, key)


def test_one_fusion_layer_is_a_graph_too() -> None:
    graph = GiraffeGraph([4, 4], 4, 4, depth=1)
    assert [y.shape[2] for y in graph([torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)])] == [8, 4]
