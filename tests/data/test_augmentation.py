"""Tests of the augmentation: Detectron2's numbers, properties and error messages."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sn2fpn.config import get_cfg
from sn2fpn.data.augmentation import (
    RandomCrop,
    RandomFlip,
    ResizeShortestEdge,
    ScaleJitter,
    build_augmentations,
    plan_transforms,
)
from sn2fpn.data.targets import annotations_to_instances
from sn2fpn.data.transforms import Crop, Flip, Resize, TransformList
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import BoxMode


@pytest.fixture(scope="module")
def expected(golden: Path) -> Any:
    return np.load(golden / "detectron2" / "preprocessing.npz")


@pytest.fixture(scope="module")
def image(golden: Path) -> np.ndarray:
    spec = importlib.util.spec_from_file_location("filler", golden / "detectron2" / "filler.py")
    filler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(filler)
    return filler.make_image(101, 37, 53, rects=4)


def test_output_sizes(expected: Any) -> None:
    for h, w, short, longest, new_h, new_w in expected["resize_shortest_edge"].tolist():
        assert ResizeShortestEdge.new_size((h, w), short, longest) == (new_h, new_w)


@pytest.mark.parametrize("size", [(64, 92), (20, 29), (37, 106), (50, 30)])
def test_resizing_is_exact(expected: Any, image: np.ndarray, size: tuple[int, int]) -> None:
    found = Resize((37, 53), size).apply_image(image)
    assert np.array_equal(found, expected[f"resize_{size[0]}x{size[1]}"])


def test_other_resizing(expected: Any, image: np.ndarray) -> None:
    mask = (image[:, :, 0] > 128).astype(np.uint8)
    assert np.array_equal(Resize((37, 53), (64, 92)).apply_mask(mask), expected["resize_segmentation_64x92"])
    found = Resize((37, 53), (20, 29)).apply_image(image.astype(np.float32))
    np.testing.assert_allclose(found, expected["resize_float_20x29"], atol=1e-4)
    gray = Resize((37, 53), (20, 29)).apply_image(image[:, :, :1])
    assert np.array_equal(gray[:, :, 0], expected["resize_20x29"][:, :, 0])


def test_boxes_polygons_and_flips(expected: Any, image: np.ndarray) -> None:
    resize, flip = Resize((37, 53), (64, 92)), Flip((37, 53))
    both = TransformList([resize, Flip((64, 92))])
    boxes = expected["boxes"]
    for transform, key in (
        (resize, "boxes_resized_64x92"),
        (flip, "boxes_hflip_w53"),
        (Flip((37, 53), vertical=True), "boxes_vflip_h37"),
        (both, "boxes_resize_hflip"),
    ):
        np.testing.assert_allclose(transform.apply_boxes(boxes), expected[key], rtol=0, atol=1e-9)
    assert np.array_equal(flip.apply_image(image), expected["image_hflip"])
    (polygon,) = both.apply_polygons([expected["polygon"]])
    np.testing.assert_allclose(polygon, expected["polygon_resize_hflip"], atol=1e-9)


def test_annotations(expected: Any, golden: Path) -> None:
    case = json.loads((golden / "detectron2" / "cases.json").read_text())["cases"]["preprocessing"]
    annotations = [{**a, "bbox_mode": BoxMode[a["bbox_mode"]]} for a in case["annotation_pipeline"]["annotations"]]
    transforms = TransformList([Resize((37, 53), (64, 92)), Flip((64, 92))])
    instances = annotations_to_instances(annotations, transforms, (64, 92))
    assert expected["anno_nonempty"].all()
    np.testing.assert_allclose(instances.gt_boxes.tensor, expected["anno_boxes"], rtol=0, atol=1e-5)
    assert instances.gt_classes.tolist() == expected["anno_classes"].tolist()
    for i, annotation in enumerate(annotations):
        (polygon,) = transforms.apply_polygons([np.reshape(p, (-1, 2)) for p in annotation["segmentation"]])
        np.testing.assert_allclose(polygon.reshape(-1), expected[f"anno_polygons{i}"], atol=1e-9)


def test_no_side_vanishes() -> None:
    assert ResizeShortestEdge.new_size((1, 4000), 800, 1333) == (1, 1333)
    assert ResizeShortestEdge.new_size((1, 1), 800, 1333) == (800, 800)


def test_evaluation_can_leave_pictures_as_they_are(image: np.ndarray) -> None:
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0
    assert plan_transforms(build_augmentations(cfg, is_train=False), (37, 53), np.random.default_rng(0)) == []


def test_crop_moves_boxes_and_polygons(image: np.ndarray) -> None:
    crop = Crop(10, 20, (15, 25))
    assert np.array_equal(crop.apply_image(image), image[10:25, 20:45])
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i}
        for i, box in enumerate([[0, 0, 30, 12], [22, 12, 30, 20], [0, 0, 20, 37], [46, 0, 53, 37]])
    ]
    instances = annotations_to_instances(annotations, TransformList([crop]), (15, 25))
    assert instances.gt_classes.tolist() == [0, 1]  # one box only touches the window, and one is outside
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 10, 2], [2, 2, 10, 10]]
    triangle = np.array([[0.0, 10], [40, 10], [40, 50]])
    (clipped,) = crop.apply_polygons([triangle, triangle - 100])
    x, y = clipped.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(20 * 15)  # y < x everywhere in the window, so that the area is its left 20 columns
    assert clipped.min() >= 0 and x.max() == 20 and y.max() == 15


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("relative", (0.5, 0.4), (50, 80), (50, 80)),
        ("relative_range", (0.5, 0.4), (50, 80), (100, 200)),
        ("absolute", (60, 300), (60, 200), (60, 200)),
        ("absolute_range", (30, 150), (30, 30), (100, 150)),
    ],
)
def test_crop_kinds(kind: str, size: tuple, low: tuple, high: tuple) -> None:
    rng = np.random.default_rng(0)
    crops = [RandomCrop(kind, size).plan((100, 200), rng) for _ in range(300)]
    sizes = np.array([c.size for c in crops])
    corners = np.array([(c.y0, c.x0) for c in crops])
    assert (sizes >= low).all() and (sizes <= high).all()
    assert (corners >= 0).all() and (corners + sizes <= [100, 200]).all()
    if low != high:  # the sizes cover the whole range
        spread = np.array(high) - low
        assert (sizes.min(0) < np.array(low) + 0.1 * spread).all() and (sizes.max(0) > high - 0.1 * spread).all()


def test_range_and_choice() -> None:
    rng = np.random.default_rng(0)

    def edges(augmentation: ResizeShortestEdge) -> set[int]:
        return {augmentation.plan((100, 200), rng).new[0] for _ in range(200)}

    assert edges(ResizeShortestEdge((50, 54), sampling="range")) == {50, 51, 52, 53, 54}
    assert edges(ResizeShortestEdge((50, 54), sampling="choice")) == {50, 54}
    flips = [RandomFlip(vertical=True).plan((3, 4), rng) for _ in range(400)]
    assert 150 < flips.count(None) < 250 and all(f is None or f.vertical for f in flips)


def test_same_generator_same_transforms() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        ["INPUT.CROP.ENABLED", True, "INPUT.MIN_SIZE_TRAIN", (480, 800), "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"]
    )
    augmentations = build_augmentations(cfg, is_train=True)
    assert [type(a) for a in augmentations] == [RandomCrop, ResizeShortestEdge, RandomFlip]
    plans = [plan_transforms(augmentations, (300, 400), np.random.default_rng(s)) for s in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    picture = np.zeros((300, 400, 3), np.uint8)
    assert plans[0].apply_image(picture).shape[:2] == plans[0].output_size((300, 400))


@pytest.mark.parametrize(
    ("key", "value", "pattern"),
    [
        ("INPUT.RANDOM_FLIP", "horizontl", r"INPUT\.RANDOM_FLIP.*did you mean 'horizontal'"),
        ("INPUT.CROP.TYPE", "relativ", r"INPUT\.CROP\.TYPE.*did you mean 'relative'"),
        ("INPUT.CROP.SIZE", [2.0, 1.0], r"INPUT\.CROP\.SIZE.*shares"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "rang", "did you mean 'range'"),
        ("INPUT.MIN_SIZE_TRAIN", (), r"INPUT\.MIN_SIZE_TRAIN: expected lengths"),
        ("INPUT.MAX_SIZE_TRAIN", 0, r"INPUT\.MAX_SIZE_TRAIN: expected a whole number of at least 1, found 0"),
    ],
)
def test_errors_name_the_key(key: str, value: Any, pattern: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.CROP.ENABLED", True, key, value])
    with pytest.raises(UserError, match=pattern):
        build_augmentations(cfg, is_train=True)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: RandomCrop("relativ", (0.5, 0.5)), "^kind: .*did you mean 'relative'"),
        (lambda: RandomCrop("absolute_range", (9, 3)), r"^size: expected \(min, max\) in pixels .*found \[9, 3\]"),
        (lambda: ResizeShortestEdge(800, sampling="rang"), "^sampling: .*did you mean 'range'"),
        (lambda: ResizeShortestEdge((800, 600), sampling="range"), r"^short_edges: expected \(min, max\)"),
        (lambda: ResizeShortestEdge(-1), "^short_edges: expected a whole number of at least 0, found -1"),
        (
            lambda: ResizeShortestEdge((800, 0.5)),
            r"^short_edges\[1\]: expected a whole number of at least 0, found 0.5",
        ),
        (lambda: ResizeShortestEdge((0, 800), sampling="range"), r"^short_edges: expected \(min, max\)"),
        (lambda: ResizeShortestEdge("800"), "^short_edges: expected a list, found '800'"),
        (lambda: ResizeShortestEdge(800, 0), "^max_size: expected a whole number of at least 1, found 0"),
        (lambda: RandomFlip(2.0), "^vertical: expected True or False, found 2.0"),
        (lambda: RandomCrop("absolute", (math.inf, 3)), r"^size\[0\]: expected a number that is finite, found inf"),
        (lambda: RandomCrop("absolute", (0, 3)), r"^size: expected \(height, width\) in pixels .*found \[0, 3\]"),
        (lambda: RandomCrop("relative", (0.5,)), r"^size: expected two shares .*found \[0.5\]"),
    ],
)
def test_errors_name_the_argument(make: Callable[[], object], pattern: str) -> None:
    with pytest.raises(ArgumentError, match=pattern):
        make()


def test_evaluation_has_keys_of_its_own() -> None:
    cfg = get_cfg()
    cfg.INPUT.MAX_SIZE_TEST = -1
    with pytest.raises(UserError, match=r"^INPUT\.MAX_SIZE_TEST: "):
        build_augmentations(cfg, is_train=False)


@pytest.mark.detectron2
@pytest.mark.parametrize("scale", [0.3, 0.77, 1.0, 1.9])
def test_scale_jitter_is_detectron2s_resize_and_crop(image: np.ndarray, scale: float) -> None:
    """Where Detectron2 draws the same factor and, for a larger picture, the same window, the images are equal."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.data import transforms as T

    for size in ((40, 90), (64, 64), (100, 30)):
        plan = ScaleJitter(scale, scale, size).plan((37, 53), np.random.default_rng(0))
        theirs = [T.ResizeScale(scale, scale, *size).get_transform(image)]
        crop = next((t for t in plan if isinstance(t, Crop)), None)
        if crop is not None:
            theirs.append(T.CropTransform(crop.x0, crop.y0, *crop.size[::-1]))
        theirs.append(T.FixedSizeCrop(size).get_transform(T.TransformList(theirs).apply_image(image)))
        expected = T.TransformList(theirs)
        assert np.array_equal(plan.apply_image(image), expected.apply_image(image))
        boxes = np.array([[3.0, 4, 50, 30], [10, 11, 12, 13]])
        np.testing.assert_allclose(plan.apply_boxes(boxes), expected.apply_box(boxes), rtol=0, atol=1e-9)
