"""Tests of the drawings of pyramids: traced graphs of known modules, and the geometry of the drawings."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyramid_drawing import PyramidGraph, draw_pyramid, graph_in_drawing, trace_pyramid
from sn2fpn.layers import Conv2d, soft_nearest_add
from sn2fpn.pyramids import FPN, SNIFPN, BiFPN, Pyramid

CHANNELS = [8, 8, 8, 8]
PICTURES = sorted((Path(__file__).resolve().parents[2] / "docs" / "pyramids").glob("*.svg"))
TAG = "{http://www.w3.org/2000/svg}"


def paths(graph: PyramidGraph) -> set[str]:
    """Return the links as text, e.g. "C5 -[subsample]> p6"; a block is named by its label and level."""

    def name(block_name: str) -> str:
        b = next(b for b in graph.blocks if b.name == block_name)
        return b.name if b.kind in ("input", "output") else f"{'/'.join(b.label)}@{b.level}"

    return {f"{name(k.source)} -[{'; '.join(k.steps)}]> {name(k.target)}" for k in graph.links}


def test_fpn_as_in_its_paper() -> None:
    expected = {"1x1@5 -[]> 3x3@5", "3x3@5 -[]> p5", "3x3@5 -[subsample]> p6", "C5 -[]> 1x1@5"}
    for i in (2, 3, 4):
        above = "1x1@5" if i == 4 else f"+@{i + 1}"
        expected |= {
            f"C{i} -[]> 1x1@{i}",
            f"1x1@{i} -[]> +@{i}",
            f"{above} -[nearest]> +@{i}",
            f"+@{i} -[]> 3x3@{i}",
            f"3x3@{i} -[]> p{i}",
        }
    assert paths(trace_pyramid(FPN(CHANNELS, 8))) == expected


@pytest.mark.parametrize(
    ("pyramid", "words"),
    [
        (SNIFPN(CHANNELS, 8), "SNI, α = 1/4"),
        (SNIFPN(CHANNELS, 8, alpha=0.5), "× 1/2; nearest"),
        (SNIFPN(CHANNELS, 8, mode="authors_rcnn"), "× 1/4; bilinear"),
    ],
)
def test_the_way_up_has_its_name(pyramid: Pyramid, words: str) -> None:
    assert {"; ".join(k.steps) for k in trace_pyramid(pyramid).links if k.steps} == {words, "subsample"}


def test_a_cell_of_bifpn() -> None:
    found = {re.sub(r"\+[^@]*", "+", path) for path in paths(trace_pyramid(BiFPN(CHANNELS, 8, num_cells=1)))}
    down, up = "max-pool 3x3/2; × w", "× w; nearest"
    assert {f"+@3 -[{up}]> +@2", f"+@2 -[{down}]> +@3", "1x1/BN@4 -[× w]> +@4", f"+@5 -[{down}]> +@6"} <= found


class _Toy(Pyramid):
    """A pyramid with joins of three kinds: a gate, a module of several steps, and one with convs on its inputs."""

    def __init__(self) -> None:
        super().__init__([8, 8], 8)
        self.add_laterals()
        self.gate, self.warp, self.taps = Conv2d(8, 1, 1), Warp(), Taps()

    def fuse(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        fine, coarse = self.laterals(features)
        fine = fine * self.gate(fine).sigmoid()
        return self.taps(self.warp(fine, coarse), coarse)


class Warp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = Conv2d(16, 8, 1), Conv2d(8, 8, 3, padding=1)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        up = F.interpolate(coarse, size=fine.shape[2:])
        return self.out(self.mix(torch.cat((fine, up), 1)) * up)


class Taps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Conv2d(8, 8, 3, padding=1), Conv2d(8, 8, 3, 2, 1)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> list[torch.Tensor]:
        return [soft_nearest_add(self.a(fine), coarse), F.relu(self.a(coarse) + self.b(fine))]


def test_joins_of_other_kinds() -> None:
    assert paths(trace_pyramid(_Toy())) == {
        "C2 -[]> 1x1@2",
        "C3 -[]> 1x1@3",
        "1x1@2 -[]> 1x1/sigmoid@2",
        "1x1@2 -[]> ×@2",
        "1x1/sigmoid@2 -[]> ×@2",
        "×@2 -[]> warp@2",
        "1x1@3 -[nearest]> warp@2",
        "warp@2 -[3x3]> +@2",
        "1x1@3 -[SNI, α = 1/4]> +@2",
        "1x1@3 -[3x3]> +/relu@3",
        "warp@2 -[3x3/2]> +/relu@3",
        "+@2 -[]> p2",
        "+/relu@3 -[]> p3",
        "+/relu@3 -[subsample]> p4",
    }


class _Damped(nn.Module):
    def forward(self, coarse: torch.Tensor, size: list[int]) -> torch.Tensor:
        return F.interpolate(coarse * 0.25, size=size)


class _Stepwise(Pyramid):
    """A pyramid whose top-down step is a module without parameters."""

    def __init__(self) -> None:
        super().__init__([8, 8], 8)
        self.add_laterals()
        self.step = _Damped()

    def fuse(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        fine, coarse = self.laterals(features)
        return [fine + self.step(coarse, fine.shape[2:]), coarse]


def test_a_module_without_parameters_shows_its_operations() -> None:
    assert "1x1@3 -[SNI, α = 1/4]> +@2" in paths(trace_pyramid(_Stepwise()))


def test_training_state_is_left_alone() -> None:
    pyramid = BiFPN(CHANNELS, 8, num_cells=1)
    before = {name: w.clone() for name, w in pyramid.state_dict().items()}
    trace_pyramid(pyramid)
    assert pyramid.training and all(torch.equal(before[name], w) for name, w in pyramid.state_dict().items())


def test_the_picture_holds_its_graph() -> None:
    graph = trace_pyramid(FPN(CHANNELS, 8))
    svg = draw_pyramid(graph, "a < b")
    assert graph_in_drawing(svg) == graph.to_dict()
    assert ElementTree.fromstring(svg).findtext(f"{TAG}title") == "a < b"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda p: p.stem)
def test_no_block_covers_another_and_all_is_in_the_picture(picture: Path) -> None:
    svg = picture.read_text(encoding="utf-8")
    graph, root = graph_in_drawing(svg), ElementTree.fromstring(svg)
    boxes = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in root.iter(f"{TAG}rect") if r.get("rx")]
    width, height = float(root.get("width")), float(root.get("height"))
    assert len(boxes) == len(graph["blocks"])
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    assert {word for b in graph["blocks"] for word in b["label"]} <= {t.text for t in root.iter(f"{TAG}text")}
    for x, y in [map(float, (t.get("x"), t.get("y"))) for t in root.iter(f"{TAG}text")]:
        assert 0 <= x <= width and 0 <= y <= height
