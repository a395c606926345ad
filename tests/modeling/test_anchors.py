"""Test anchors against golden tables and their definition, and the lists that serve all levels."""

from __future__ import annotations

import math

import pytest
import torch

from golden_detectron2 import CASES, max_error, numbers
from sn2fpn.errors import UserError
from sn2fpn.modeling.rpn.anchors import AnchorGenerator

CASE = CASES["components"]


def maps(sizes: list[list[int]]) -> list[torch.Tensor]:
    return [torch.zeros(1, 1, h, w) for h, w in sizes]


def test_golden_anchors() -> None:
    spec, golden = CASE["anchors"], numbers(CASE)
    # The case says offset 0.0, but its tables were made with 0.5, as Detectron2's own generator confirms. The golden
    # detectors do use 0.0.
    generator = AnchorGenerator(spec["sizes"], spec["aspect_ratios"], spec["strides"], offset=0.5)
    assert generator.num_anchors == golden["num_anchors"].tolist()
    for level, anchors in enumerate(generator(maps(spec["feature_sizes"]))):
        p = f"p{level + 2}"
        assert max_error(generator.cell_anchors[level], golden[f"cell_anchors_{p}"]) == 0
        assert len(anchors) == golden[f"grid_count_{p}"]
        assert max_error(anchors[golden[f"grid_index_{p}"]], golden[f"grid_anchors_{p}"]) == 0


def test_golden_anchors_with_several_sizes_per_level() -> None:
    spec, golden = CASE["offset_anchors"], numbers(CASE)
    generator = AnchorGenerator(spec["sizes"], spec["aspect_ratios"], spec["strides"], spec["offset"])
    for level, anchors in enumerate(generator(maps(spec["feature_sizes"]))):
        assert max_error(generator.cell_anchors[level], golden[f"offset_cell_anchors_{level}"]) == 0
        assert max_error(anchors, golden[f"offset_grid_anchors_{level}"]) == 0


def test_definition() -> None:
    sizes, ratios, stride, offset = (20.0, 50.0), (0.5, 2.0), 8, 0.25
    (anchors,) = AnchorGenerator([sizes], [ratios], [stride], offset)(maps([[2, 3]]))
    expected = []
    for y in range(2):
        for x in range(3):
            for size in sizes:
                for ratio in ratios:
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    cx, cy = (x + offset) * stride, (y + offset) * stride
                    expected.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    torch.testing.assert_close(anchors, torch.tensor(expected))


@pytest.mark.parametrize("sizes", [[[32]], [32], [[32], [32], [32]]])
def test_one_list_serves_all_levels(sizes: list) -> None:
    generator = AnchorGenerator(sizes, [[1.0]], [4, 8, 16])
    assert [a.tolist() for a in generator.cell_anchors] == [[[-16, -16, 16, 16]]] * 3
    assert generator.state_dict() == {}


@pytest.mark.parametrize(
    "sizes, ratios, offset, words",
    [
        ([[32], [64]], [[1.0]], 0.0, "^sizes: expected one list, or one for each of 3 levels, found 2"),
        ([[32]], [], 0.0, r"^aspect_ratios: expected one list of numbers, or one for each of 3 levels, found \[\]"),
        ([[32]], [[1.0]], 1.5, "^offset: expected a number of at least 0 and below 1, found 1.5"),
    ],
)
def test_mistakes(sizes: list, ratios: list, offset: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        AnchorGenerator(sizes, ratios, [4, 8, 16], offset)
