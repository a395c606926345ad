"""Tests of images that are made of several pictures, or jittered: every object is where its colour is.

Each class has a colour of its own, so that the objects of an augmented image can be found without its targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from sn2fpn.config import get_cfg
from sn2fpn.data.augmentation import RandomFlip, ResizeShortestEdge, ScaleJitter
from sn2fpn.data.mapper import DatasetMapper, build_mapper
from sn2fpn.data.mixing import CopyPaste, Mosaic
from sn2fpn.data.targets import annotations_to_instances
from sn2fpn.data.transforms import FILL, Crop, Pad, Resize, TransformList
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import BitMasks, Boxes, BoxMode, Instances

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]])
SIZES = [(60, 90), (90, 60), (70, 70), (50, 120)]


def _record(path: Path, size: tuple[int, int], boxes: dict[int, tuple[int, int, int, int]], rle: bool) -> dict:
    image = np.zeros((*size, 3), np.uint8)
    annotations = []
    for colour, (x1, y1, x2, y2) in boxes.items():
        image[y1:y2, x1:x2] = COLOURS[colour]
        polygons = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        runs = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
        annotations.append(
            {
                "bbox": [x1, y1, x2, y2],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": colour,
                "segmentation": runs if rle else polygons,
            }
        )
    annotations.append({**annotations[0], "category_id": 0, "bbox": [0, 0, 9, 9], "iscrowd": 1} if annotations else {})
    Image.fromarray(image).save(path)
    return {
        "file_name": str(path),
        "image_id": path.stem,
        "height": size[0],
        "width": size[1],
        "annotations": [a for a in annotations if a],
    }


def _pictures(folder: Path, rle: bool) -> list[dict]:
    """Return four pictures with two, one, three and no objects, and a crowd region in those with objects."""
    objects = [
        {0: (5, 8, 40, 50), 1: (50, 20, 85, 55)},
        {2: (10, 30, 50, 80)},
        {3: (4, 4, 30, 30), 4: (36, 4, 66, 26), 5: (10, 40, 60, 66)},
        {},
    ]
    return [_record(folder / f"{i}{rle}.png", *parts, rle) for i, parts in enumerate(zip(SIZES, objects))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[dict]]:
    folder = tmp_path_factory.mktemp("coloured")
    return {rle: _pictures(folder, rle) for rle in (False, True)}


def _check(image: torch.Tensor, instances: Instances, covered: bool) -> None:
    """Check that boxes and masks are where the colours of their objects are."""
    pixels = image.permute(1, 2, 0).numpy().astype(int)
    for colour, value in enumerate(COLOURS):
        there = np.abs(pixels - value).max(2) < 60
        mixed = np.where(value, pixels > 40, pixels < 60).all(2)  # also at an outline, with black
        of_class = instances[instances.gt_classes == colour]
        boxes = of_class.gt_boxes.tensor.numpy()
        near = np.zeros_like(there)
        for x1, y1, x2, y2 in boxes:
            near[max(int(y1) - 2, 0) : int(y2) + 3, max(int(x1) - 2, 0) : int(x2) + 3] = True
            inner = mixed[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1]
            if min(inner.shape) >= 8:  # each side touches the object, and what is not covered has its colour
                assert all(side.any() for side in (inner[:4], inner[-4:], inner[:, :4], inner[:, -4:]))
                assert covered or inner[2:-2, 2:-2].mean() > 0.8
        assert near[there].all(), f"an object of class {colour} has no box"
        if instances.has("gt_masks"):
            masks = of_class.gt_masks
            if not isinstance(masks, BitMasks):
                masks = BitMasks.from_polygon_masks(masks, *image.shape[1:])
            drawn = masks.tensor.any(0).numpy() if len(masks) else np.zeros_like(there)
            outline = 2.5 * sum(2 * (x2 - x1 + y2 - y1) for x1, y1, x2, y2 in boxes)
            assert (drawn != there).sum() <= outline + 4


AUGMENTATIONS = {
    "resize": [ResizeShortestEdge((80, 120), 200), RandomFlip()],
    "jitter": [ScaleJitter(0.4, 2.0, (96, 128)), RandomFlip()],
}


@pytest.mark.parametrize("mask_format", [None, "polygon", "bitmask"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 3), mosaic=st.booleans(), paste=st.booleans())
def test_objects_are_where_their_colours_are(
    pictures: dict[bool, list[dict]],
    name: str,
    mask_format: str | None,
    seed: int,
    index: int,
    mosaic: bool,
    paste: bool,
) -> None:
    mapper = DatasetMapper(
        AUGMENTATIONS[name],
        "RGB",
        mask_format=mask_format,
        boxes_from_masks=mask_format is not None,
        mosaic=Mosaic(1, (90, 130)) if mosaic else None,
        copy_paste=CopyPaste(1, 0.7) if paste and mask_format != "polygon" else None,
    )
    records = pictures[mask_format == "bitmask"]
    found = mapper(records[index], np.random.default_rng(seed), records)
    instances = found["instances"]
    assert instances.image_size == tuple(found["image"].shape[1:])
    assert instances.has("gt_masks") == (mask_format is not None)
    _check(found["image"], instances, covered=paste)


def test_mosaic_covers_its_image_and_shows_four_pictures(tmp_path: Path) -> None:
    for i, colour in enumerate(COLOURS[:4]):
        Image.fromarray(np.full((40, 70, 3), colour, np.uint8)).save(tmp_path / f"{i}.png")
    one = {"height": 40, "width": 70, "annotations": []}
    records = [{**one, "file_name": str(tmp_path / f"{i}.png")} for i in range(4)]
    mapper = DatasetMapper([], "RGB", mosaic=Mosaic(1, (101, 64)))
    seen = set()
    for seed in range(30):
        image = mapper(records[0], np.random.default_rng(seed), records)["image"].permute(1, 2, 0).numpy()
        assert image.shape == (101, 64, 3)
        values = {tuple(v) for v in image.reshape(-1, 3).tolist()}
        assert (255, 0, 0) in values and values <= {tuple(c) for c in COLOURS[:4].tolist()}  # nothing is padded
        seen |= values
        corners = [image[y, x].tolist() for y in (0, -1) for x in (0, -1)]
        assert [255, 0, 0] in corners
        for window in Mosaic(1, (101, 64)).windows(np.random.default_rng(seed)):
            assert min(window.size) >= 16 and max(window.size) <= 76
    assert len(seen) == 4


def test_scale_jitter_gives_one_size_and_a_factor_in_its_range() -> None:
    jitter, rng = ScaleJitter(0.5, 2.0, (100, 160)), np.random.default_rng(0)
    factors = []
    for _ in range(300):
        plan = jitter.plan((50, 60), rng)
        assert plan.output_size((50, 60)) == (100, 160)
        factors.append(plan[0].new[0] / 50 / 2)  # the factor 1 fits 50x60 into 100x160 with twice its size
        assert plan[0].new[1] == pytest.approx(plan[0].new[0] * 60 / 50, abs=1.2)
    assert 0.5 <= min(factors) < 0.55 and 1.95 < max(factors) <= 2.01
    assert np.mean(factors) == pytest.approx(1.25, abs=0.08)
    image = np.full((50, 60, 3), 7, np.uint8)
    small = ScaleJitter(0.5, 0.5, (100, 160)).plan((50, 60), rng).apply_image(image)
    assert (small[:50, :60] == 7).all() and (small[50:] == FILL).all() and (small[:, 60:] == FILL).all()
    assert np.array_equal(small, np.asarray(Pad(0, 0, (100, 160)).apply_pil(Image.fromarray(image))))


def _objects(*shapes: tuple[int, int, int, int], size: tuple[int, int], first: int = 0) -> Instances:
    masks = torch.zeros(len(shapes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, shapes):
        mask[y1:y2, x1:x2] = True
    boxes = Boxes(torch.tensor(shapes, dtype=torch.float32))
    return Instances(
        size, gt_boxes=boxes, gt_classes=torch.arange(first, first + len(shapes)), gt_masks=BitMasks(masks)
    )


def test_pasted_objects_cover_others() -> None:
    """Of three objects one keeps its left half, one is covered, and one is not touched."""
    image, other = np.zeros((3, 20, 30), np.uint8), np.full((3, 40, 25), 9, np.uint8)
    below = _objects((0, 0, 10, 10), (6, 2, 9, 8), (20, 12, 28, 18), size=(20, 30))
    above = _objects((5, 0, 15, 10), (2, 15, 8, 40), (3, 30, 9, 38), size=(40, 25), first=5)
    rng = np.random.default_rng(0)
    picture, found = CopyPaste(1, 1.0).paste(image, below, other, above, rng)
    assert found.gt_classes.tolist() == [0, 2, 5, 6]  # what lies beyond the image's 20 rows is cut off
    expected = [[0, 0, 5, 10], [20, 12, 28, 18], [5, 0, 15, 10], [2, 15, 8, 20]]
    assert found.gt_boxes.tensor.tolist() == expected
    covered = np.zeros((20, 30), bool)
    covered[:10, 5:15] = covered[15:, 2:8] = True
    assert ((picture == 9) == covered).all() and not image.any()  # the given image is left as it is
    assert found.gt_masks.tensor.sum((1, 2)).tolist() == [50, 48, 100, 30]
    strict = CopyPaste(1, 1.0).paste(image, below, other, above, rng, min_visible=0.6)[1]
    assert strict.gt_classes.tolist() == [2, 5]  # half of the first one is left, and a fifth of the cut one
    assert CopyPaste(1, 0.0).paste(image, below, other, above, rng)[1] is below
    small, beside = _objects((0, 0, 5, 5), size=(20, 30)), _objects((3, 0, 9, 9), size=(40, 25))
    assert len(CopyPaste(1, 1.0).paste(image, small, other, beside, rng, min_visible=0.6)[1]) == 2  # 15 of 25 pixels


def test_objects_without_masks_are_pasted_as_boxes() -> None:
    image, other = np.zeros((3, 20, 30), np.uint8), np.full((3, 20, 30), 9, np.uint8)
    target, source = _objects((0, 0, 10, 10), size=(20, 30)), _objects((5, 5, 15, 12), size=(20, 30))
    for instances in (target, source):
        instances.gt_masks = BitMasks(torch.zeros_like(instances.gt_masks.tensor))
    picture, found = CopyPaste(1, 1.0).paste(image, target, other, source, np.random.default_rng(0))
    assert (picture[0, 5:12, 5:15] == 9).all() and (picture == 9).sum() == 3 * 70
    assert found.gt_boxes.tensor.tolist() == [[0, 0, 10, 10], [5, 5, 15, 12]]
    assert found.gt_masks.tensor.sum((1, 2)).tolist() == [75, 70]


@pytest.mark.parametrize(("min_visible", "kept"), [(0.0, [0, 1, 2]), (0.3, [0, 1]), (0.31, [0]), (1.0, [0])])
def test_objects_that_are_hardly_visible_are_dropped(min_visible: float, kept: list[int]) -> None:
    """Of the boxes, all, 30 % and 1 % are in the window, and the last one is outside."""
    boxes = [[20, 20, 30, 30], [3, 20, 13, 30], [1, 1, 11, 11], [0, 0, 5, 5]]
    annotations = [
        {"bbox": b, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "segmentation": []} for i, b in enumerate(boxes)
    ]
    transforms = TransformList([Crop(10, 10, (30, 30)), Resize((30, 30), (60, 90))])
    found = annotations_to_instances(annotations, transforms, (60, 90), min_visible=min_visible)
    assert found.gt_classes.tolist() == kept
    window = (45, 30, 90, 60)  # which shows a quarter of the first box
    for share, boxes in ((0.25, [[45, 30, 60, 40]]), (0.26, [])):
        found = annotations_to_instances(annotations, transforms, (60, 90), window=window, min_visible=share)
        assert found.gt_boxes.tensor.tolist() == boxes
    whole = {"bbox": [0, 0, 41, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    resize = TransformList([Resize((60, 41), (60, 46))])  # whose right border is 46 up to a rounding error
    assert len(annotations_to_instances([whole], resize, (60, 46), min_visible=1.0)) == 1


def test_an_image_without_objects_is_legal(pictures: dict[bool, list[dict]]) -> None:
    empty = pictures[False][3]
    mapper = DatasetMapper(
        [ScaleJitter(1.0, 2.0, (64, 64))], mask_format="bitmask", mosaic=Mosaic(1), copy_paste=CopyPaste(1)
    )
    found = mapper(empty, np.random.default_rng(0), [empty])["instances"]
    assert len(found) == 0 and found.gt_masks.tensor.shape == (0, 64, 64) and found.gt_boxes.tensor.shape == (0, 4)


def test_pictures_of_one_channel(pictures: dict[bool, list[dict]]) -> None:
    records = pictures[False]
    mapper = DatasetMapper([ScaleJitter(0.3, 0.5, (64, 64))], "L", mosaic=Mosaic(1), copy_paste=CopyPaste(1))
    assert mapper(records[0], np.random.default_rng(0), records)["image"].shape == (1, 64, 64)


def test_a_broken_partner_is_named(pictures: dict[bool, list[dict]]) -> None:
    good, broken = pictures[False][0], {**pictures[False][1], "file_name": "gone.png"}
    mapper = DatasetMapper([], mosaic=Mosaic(1))
    with pytest.raises(UserError, match=r"^gone\.png: image file does not exist"):
        mapper(good, np.random.default_rng(0), [broken])
    with pytest.raises(ArgumentError, match=r"^records: expected the data set"):
        mapper(good, np.random.default_rng(0))


def _changed(values: Sequence[Any]) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list(list(values))
    return cfg


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        (["INPUT.MOSAIC.PROB", 1.5], r"^INPUT\.MOSAIC\.PROB: expected a number of at least 0 and of at most 1"),
        (["INPUT.MOSAIC.SIZE", (3, 80)], r"^INPUT\.MOSAIC\.SIZE\[0\]: expected a whole number of at least 4, found 3"),
        (["INPUT.MOSAIC.SIZE", (80,)], r"^INPUT\.MOSAIC\.SIZE: expected 2 numbers"),
        (["INPUT.COPY_PASTE.PROB", -0.1], r"^INPUT\.COPY_PASTE\.PROB: "),
        (["INPUT.COPY_PASTE.SHARE", 2.0], r"^INPUT\.COPY_PASTE\.SHARE: "),
        (["INPUT.MIN_VISIBLE", 1.2], r"^INPUT\.MIN_VISIBLE: expected a number of at least 0 and of at most 1"),
        (
            ["INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.MIN_SCALE", 0.0],
            r"^INPUT\.SCALE_JITTER\.MIN_SCALE: expected a number above 0",
        ),
        (
            ["INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.MAX_SCALE", 0.05],
            r"^INPUT\.SCALE_JITTER\.MAX_SCALE: expected a number of at least 0.1, found 0.05",
        ),
        (["INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.SIZE", (0, 64)], r"^INPUT\.SCALE_JITTER\.SIZE\[0\]"),
        (
            ["MODEL.MASK_ON", True, "INPUT.COPY_PASTE.PROB", 0.5],
            r"^INPUT\.MASK_FORMAT: expected 'bitmask' with copy-paste",
        ),
        (
            ["INPUT.PHOTOMETRIC.ENABLED", True, "INPUT.PHOTOMETRIC.HUE", (-0.6, 0.1)],
            r"^INPUT\.PHOTOMETRIC\.HUE\[0\]: expected a number of at least -0.5",
        ),
        (
            ["INPUT.PHOTOMETRIC.ENABLED", True, "INPUT.PHOTOMETRIC.CONTRAST", (1.5, 0.5)],
            r"^INPUT\.PHOTOMETRIC\.CONTRAST: expected \(min, max\), found \(1.5, 0.5\)",
        ),
        (["INPUT.PHOTOMETRIC.ENABLED", True, "INPUT.PHOTOMETRIC.PROB", 2.0], r"^INPUT\.PHOTOMETRIC\.PROB: "),
    ],
)
def test_wrong_values_are_named_by_their_keys(values: list[Any], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        build_mapper(_changed(values), is_train=True)


def test_all_is_off_by_default_and_in_evaluation() -> None:
    on = ["INPUT.MOSAIC.PROB", 0.5, "INPUT.COPY_PASTE.PROB", 0.5, "INPUT.PHOTOMETRIC.ENABLED", True]
    for mapper in (build_mapper(get_cfg(), is_train=True), build_mapper(_changed(on), is_train=False)):
        assert not mapper.mixes and not mapper.reads_masks
        assert mapper.photometric is mapper.function is None and mapper.min_visible == 0
    mapper = build_mapper(_changed(on), is_train=True)
    assert mapper.mixes and mapper.reads_masks and mapper.photometric is not None
