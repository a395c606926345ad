"""Test the conversion between formats of boxes, by corners, by properties and against Detectron2's."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sn2fpn.data.mapper import DatasetMapper
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import BoxMode, box_of

XYXY, XYWH, ROTATED = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS
RELATIVE = (BoxMode.XYXY_REL, BoxMode.XYWH_REL)

number = st.floats(-1e4, 1e4)
length = st.floats(0, 1e4)
xywh = st.tuples(number, number, length, length)
whole_xywh = st.tuples(*[st.integers(-(10**6), 10**6)] * 2, *[st.integers(0, 10**6)] * 2)


@settings(deadline=None)
@given(whole_xywh)
def test_whole_numbers_survive_the_way_there_and_back(box: tuple[int, ...]) -> None:
    corners = BoxMode.convert(box, XYWH, XYXY)
    assert corners == (box[0], box[1], box[0] + box[2], box[1] + box[3])
    assert all(type(x) is int for x in corners)
    assert BoxMode.convert(corners, XYXY, XYWH) == box
    assert BoxMode.convert(BoxMode.convert(box, XYWH, ROTATED), ROTATED, XYXY) == corners


@settings(deadline=None)
@given(xywh)
def test_sizes_survive_the_way_there_and_back_up_to_rounding(box: tuple[float, ...]) -> None:
    for way in ((XYWH, XYXY, XYWH), (XYWH, ROTATED, XYWH), (XYWH, XYXY, ROTATED, XYXY, XYWH)):
        found = box
        for source, target in pairwise(way):
            found = BoxMode.convert(found, source, target)
        assert found == pytest.approx(box, abs=1e-10)


@settings(deadline=None)
@given(number, number, length, length, st.floats(-360, 360))
def test_a_rotated_box_is_surrounded_by_the_box_of_its_corners(
    x: float, y: float, w: float, h: float, a: float
) -> None:
    cos, sin = math.cos(math.radians(a)), math.sin(math.radians(a))
    corners = [
        (x + i * w / 2 * cos + j * h / 2 * sin, y - i * w / 2 * sin + j * h / 2 * cos) for i in (-1, 1) for j in (-1, 1)
    ]
    xs, ys = zip(*corners)
    expected = min(xs), min(ys), max(xs), max(ys)
    assert BoxMode.convert([x, y, w, h, a], ROTATED, XYXY) == pytest.approx(list(expected), abs=1e-8)
    size = BoxMode.convert([x, y, w, h, a], ROTATED, XYWH)
    assert size[2:] == pytest.approx([expected[2] - expected[0], expected[3] - expected[1]], abs=1e-8)


BOXES = [[10.0, 20.0, 5.0, 7.0], [0.5, 0.25, 1.0, 2.0]]
CONTAINERS: list[tuple[Any, Any]] = [
    (list, None),
    (tuple, None),
    *((np.array, dtype) for dtype in (np.float16, np.float32, np.float64, np.int64)),
    *((torch.tensor, dtype) for dtype in (torch.float16, torch.float32, torch.float64, torch.int32)),
]


@pytest.mark.parametrize(("make", "dtype"), CONTAINERS)
@pytest.mark.parametrize("target", [XYXY, ROTATED])
def test_what_comes_in_goes_out(make: Any, dtype: Any, target: BoxMode) -> None:
    for boxes in (BOXES, BOXES[0]):
        given_boxes = make(boxes) if dtype is None else make(boxes, dtype=dtype)
        found = BoxMode.convert(given_boxes, XYWH, target)
        assert type(found) is type(given_boxes) and getattr(found, "dtype", None) == getattr(given_boxes, "dtype", None)
        kept = make(boxes) if dtype is None else make(boxes, dtype=dtype)
        assert np.array_equal(np.asarray(given_boxes), np.asarray(kept))  # The input is not changed.
        assert BoxMode.convert(given_boxes, XYWH, XYWH) is given_boxes
        if dtype not in (np.int64, torch.int32):
            expected = (
                [[10, 20, 15, 27], [0.5, 0.25, 1.5, 2.25]]
                if target == XYXY
                else [[12.5, 23.5, 5, 7, 0], [1, 1.25, 1, 2, 0]]
            )
            np.testing.assert_array_equal(np.asarray(found), expected if boxes is BOXES else expected[0])


def test_no_boxes_and_the_numbers_of_formats() -> None:
    assert BoxMode.convert(np.empty((0, 4)), 1, 0).shape == (0, 4)
    assert BoxMode.convert(torch.empty(0, 5), 4, 0).shape == (0, 4)
    assert [int(mode) for mode in BoxMode] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("box", "source", "target", "words"),
    [
        ([0.1, 0.2, 0.3, 0.4], 2, 0, r"from_mode: XYXY_REL \(2\) holds shares .* expected boxes in pixels"),
        ([0.1, 0.2, 0.3, 0.4], 3, 1, r"from_mode: XYWH_REL \(3\) holds shares"),
        ([1, 2, 3, 4], 0, 2, r"to_mode: XYXY_REL \(2\) holds shares"),
        ([1, 2, 3, 4], 7, 0, "from_mode: there is no box mode 7; choose from: 0, 1, 2, 3, 4"),
        ([1, 2, 3, 4], "XYWH", 0, "from_mode: there is no box mode 'XYWH'"),
        ([1, 2, 3, 4, 5], 1, 0, r"box: expected 4 numbers for each box, found \[1, 2, 3, 4, 5\]"),
        ([1, 2, 3, 4], 4, 0, "box: expected 5 numbers for each box"),
        ([[1, 2, 3, 4], [1, 2]], 1, 0, "box: expected 4 numbers"),
        (["1", "2", "3", "4"], 1, 0, "box: expected 4 numbers"),
        ([1, 2, None, 4], 1, 0, "box: expected 4 numbers"),
        (torch.zeros(3), 1, 0, "box: expected 4 numbers"),
        ([], 1, 0, "box: expected 4 numbers"),
    ],
)
def test_what_cannot_be_converted(box: Any, source: Any, target: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{words}"):
        BoxMode.convert(box, source, target)


def test_the_box_of_an_annotation() -> None:
    assert box_of({"bbox": [1, 2, 3, 4], "bbox_mode": 1}).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert box_of({"bbox": (5, 5, 4, 2, 90), "bbox_mode": 4}, XYWH).tolist() == pytest.approx([4, 3, 2, 4])
    for annotation, words in (
        ({"bbox": [0, 0, 1, 1], "bbox_mode": 2}, r"^bbox_mode: XYXY_REL \(2\)"),
        ({"bbox": [0, 0, 1, 1]}, "^bbox_mode: there is no box mode None"),
        ({"bbox": [0, 0, 1], "bbox_mode": 0}, "^bbox: expected 4 numbers"),
        ({"bbox_mode": 0}, "^bbox: expected 4 numbers"),
    ):
        with pytest.raises(ArgumentError, match=words):
            box_of(annotation)


@pytest.mark.parametrize("mask_format", [None, "bitmask"])
def test_a_training_picture_and_its_object_are_named(mask_format: str | None, tmp_path: Any) -> None:
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(path)
    good = {"bbox": [1, 1, 5, 5], "bbox_mode": 0, "category_id": 0, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    annotations = [{**good, "iscrowd": 1}, good, {**good, "bbox": [0.1, 0.1, 0.5, 0.5], "bbox_mode": 3}]
    record = {"file_name": str(path), "height": 8, "width": 9, "image_id": 1, "annotations": annotations}
    with pytest.raises(UserError, match=rf"^{path}: annotations\[2\].bbox_mode: XYWH_REL \(3\) holds shares"):
        DatasetMapper([], mask_format=mask_format)(record, np.random.default_rng(0))
    rotated = {**good, "bbox": [4.0, 4.0, 4.0, 2.0, 90.0], "bbox_mode": 4}
    found = DatasetMapper([], mask_format=mask_format)({**record, "annotations": [rotated]}, np.random.default_rng(0))
    torch.testing.assert_close(found["instances"].gt_boxes.tensor, torch.tensor([[3.0, 2.0, 5.0, 6.0]]))


@pytest.mark.detectron2
def test_detectron2_converts_alike() -> None:
    theirs = pytest.importorskip("detectron2.structures", reason="Detectron2 is not installed").BoxMode
    rng = np.random.default_rng(0)
    for source, target in ((0, 1), (1, 0), (1, 4), (4, 0)):
        boxes = rng.uniform(1, 100, (6, 5 if source == 4 else 4))
        for given_boxes in (
            boxes,
            boxes.astype(np.float32),
            torch.from_numpy(boxes),
            torch.from_numpy(boxes).float(),
            torch.from_numpy(boxes).int(),
            boxes.astype(np.int64),
            boxes[0].tolist(),
            tuple(boxes[1].tolist()),
        ):
            found = BoxMode.convert(given_boxes, source, target)
            expected = theirs.convert(given_boxes, theirs(source), theirs(target))
            assert type(found) is type(expected)
            assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-6)
    for mode in RELATIVE:
        with pytest.raises(AssertionError):
            theirs.convert([0.0, 0.0, 1.0, 1.0], theirs(int(mode)), theirs.XYXY_ABS)
