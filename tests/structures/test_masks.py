"""Test masks as polygons and as bitmaps: Detectron2's targets, indexing, boxes and run lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sn2fpn.structures import BitMasks, Boxes, Instances, PolygonMasks, masks_to_rle, polygons_to_bitmask

SQUARE = [10.0, 20.0, 30.0, 20.0, 30.0, 50.0, 10.0, 50.0]
TRIANGLE = [40.0, 10.0, 60.0, 10.0, 40.0, 30.0]


@pytest.fixture(scope="module")
def expected(golden: Path) -> Any:
    with np.load(golden / "detectron2" / "preprocessing.npz") as npz:
        return dict(npz)


def three() -> PolygonMasks:
    """Return a square, an object of two parts, and an empty mask."""
    return PolygonMasks([[SQUARE], [SQUARE, TRIANGLE], []])


def bitmaps() -> BitMasks:
    return BitMasks.from_polygon_masks(three(), 60, 80)


def test_golden_targets_boxes_and_areas(expected: Any) -> None:
    polygons = PolygonMasks([[expected["anno_polygons0"]], [expected["anno_polygons1"]]])
    bits = BitMasks.from_polygon_masks(polygons, 64, 92)
    boxes = torch.from_numpy(expected["crop_boxes"])
    assert np.array_equal(bits.tensor, expected["anno_bitmasks"])
    assert np.array_equal(polygons.crop_and_resize(boxes, 28), expected["crop_polygon_28"])
    assert np.array_equal(bits.crop_and_resize(boxes, 28), expected["crop_bitmask_28"])
    assert np.array_equal(polygons.get_bounding_boxes().tensor, expected["anno_polygon_bounding_boxes"])
    assert polygons.area().tolist() == pytest.approx(expected["anno_polygon_area"].tolist(), abs=1e-12)
    assert polygons.nonempty().tolist() == expected["anno_nonempty"].tolist()


@pytest.mark.parametrize("make", [three, bitmaps])
def test_indexing_and_joining(make: Callable) -> None:
    masks = make()
    boxes = torch.tensor([[0.0, 0.0, 80.0, 60.0]]).repeat(3, 1)
    whole = masks.crop_and_resize(boxes, 14)
    for item, rows in (
        (1, [1]),
        (slice(1, None), [1, 2]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0, 0]), [2, 0, 0]),
        ([1, 0], [1, 0]),
        (torch.tensor([]).long(), []),
    ):
        picked = masks[item]
        assert type(picked) is type(masks) and len(picked) == len(rows)
        assert torch.equal(picked.crop_and_resize(boxes[rows], 14), whole[rows])
    joined = type(masks).cat([masks[:1], masks[1:]])
    assert torch.equal(joined.crop_and_resize(boxes, 14), whole)
    assert [len(list(masks)), masks.nonempty().tolist(), str(masks.device)] == [3, [True, True, False], "cpu"]
    instances = Instances((60, 80), gt_boxes=Boxes(boxes), gt_masks=masks)[torch.tensor([2, 0])].to("cpu")
    assert instances.gt_masks.nonempty().tolist() == [False, True]


@pytest.mark.parametrize("make", [three, bitmaps])
def test_boxes_choose_their_masks(make: Callable) -> None:
    masks, index = make(), torch.tensor([1, 1, 0, 2])
    boxes = torch.tensor([[5.0, 8.0, 70.0, 55.0], [35.0, 5.0, 62.0, 32.0], [10.0, 20.0, 30.0, 50.0], [0.0, 0, 9, 9]])
    targets = masks.crop_and_resize(boxes, 28, index)
    assert torch.equal(targets, masks[index].crop_and_resize(boxes, 28))
    assert targets.dtype == torch.bool and targets[2].all() and not targets[3].any()
    assert targets[1].float().mean() == pytest.approx(0.5 * 20 * 20 / 27**2, rel=0.1)  # the triangle
    assert masks[:0].crop_and_resize(boxes[:0], 28).shape == (0, 28, 28)
    assert torch.equal(masks.crop_and_resize(boxes[:0], 28, index[:0]), targets[:0])
    with pytest.raises(ValueError, match="expected one for each of 3 masks, found 4"):
        masks.crop_and_resize(boxes, 28)


def test_bitmap_at_its_own_resolution_is_cut_out() -> None:
    """A box of 16 x 16 whole pixels is sampled at the centres of pixels by a grid of 16."""
    bits = BitMasks(np.random.default_rng(0).random((2, 40, 50)) < 0.5)
    boxes = torch.tensor([[3.0, 7.0, 19.0, 23.0], [30.0, 20.0, 46.0, 36.0]])
    first, second = bits.crop_and_resize(boxes, 16)
    assert torch.equal(first, bits.tensor[0, 7:23, 3:19]) and torch.equal(second, bits.tensor[1, 20:36, 30:46])


def test_boxes_are_tight() -> None:
    expected = torch.tensor([[10.0, 20, 30, 50], [10, 10, 60, 50], [0, 0, 0, 0]])
    assert torch.equal(three().get_bounding_boxes().tensor, expected)
    assert (bitmaps().get_bounding_boxes().tensor - expected).abs().max() <= 1  # The tip covers no whole pixel.
    assert three().area().tolist() == [600, 800, 0]
    corner = torch.zeros(1, 5, 7, dtype=torch.bool)
    corner[0, 4, 6] = True
    assert BitMasks(corner).get_bounding_boxes().tensor.tolist() == [[6, 4, 7, 5]]
    assert BitMasks(torch.zeros(0, 5, 7)).get_bounding_boxes().tensor.shape == (0, 4)
    assert bitmaps().image_size == (60, 80) and bitmaps().tensor[1].sum() == pytest.approx(800, rel=0.03)


def test_run_lengths_are_cocos() -> None:
    masks = torch.from_numpy(np.random.default_rng(1).random((4, 33, 21)) < 0.3)
    masks[2] = False
    rles = masks_to_rle(masks)
    assert all(r["size"] == [33, 21] and isinstance(r["counts"], str) for r in rles)
    assert np.array_equal(np.stack([coco_mask.decode(r) for r in rles]), masks)
    assert masks_to_rle(masks[:0]) == []
    (whole,) = masks_to_rle(torch.ones(1, 3, 2, dtype=torch.bool))
    assert coco_mask.area(whole) == 6


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_coordinates_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="polygons: expected finite coordinates"):
        polygons_to_bitmask([np.array([1.0, 1, 5, 1, value, 6])], 8, 8)


def test_what_is_no_mask() -> None:
    with pytest.raises(ValueError, match="3 or more points, found 4 numbers"):
        PolygonMasks([[[0.0, 0.0, 5.0, 5.0]]])
    with pytest.raises(ValueError, match="a list of objects, each of which is a list of polygons"):
        PolygonMasks([np.zeros(8)])
    with pytest.raises(ValueError, match=r"\(N, H, W\), found \(4, 4\)"):
        BitMasks(np.zeros((4, 4)))
    assert not polygons_to_bitmask([], 4, 5).any()
