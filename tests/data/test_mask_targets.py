"""Tests of masks from the file to the training target: all formats and transforms, and unusable masks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sn2fpn.config import get_cfg
from sn2fpn.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_test_loader,
    build_train_loader,
    get_dataset_dicts,
    load_coco_json,
)
from sn2fpn.data.mapper import build_mapper
from sn2fpn.data.masks import as_lists
from sn2fpn.data.targets import annotations_to_instances
from sn2fpn.data.transforms import Crop, Flip, Pad, Resize, TransformList
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import BitMasks, BoxMode, PolygonMasks

SIZE = (60, 80)
HEXAGON = [12.0, 20.5, 30.0, 8.0, 47.5, 18.0, 46.0, 40.0, 28.0, 52.5, 11.0, 41.0]
TRIANGLE = [50.0, 10.0, 76.0, 12.0, 60.0, 50.0]
TRANSFORMS = {
    "none": TransformList([]),
    "resize": TransformList([Resize(SIZE, (93, 124))]),
    "flip": TransformList([Flip(SIZE)]),
    "vertical": TransformList([Flip(SIZE, vertical=True)]),
    "crop": TransformList([Crop(6, 15, (40, 42))]),
    "pad": TransformList([Pad(7, 11, (90, 100))]),
    "all": TransformList([Crop(6, 15, (40, 42)), Resize((40, 42), (100, 105)), Flip((100, 105))]),
}


def annotation(*polygons: list[float], **changes: Any) -> dict[str, Any]:
    points = np.concatenate([np.reshape(p, (-1, 2)) for p in polygons])
    return {
        "bbox": [*points.min(0), *points.max(0)],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": list(polygons),
        **changes,
    }


def rle(*polygons: list[float]) -> dict[str, Any]:
    return coco_mask.merge(coco_mask.frPyObjects(list(polygons), *SIZE))


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Compute COCO's run lengths, which go down the columns and start with zeros."""
    pixels = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], ends, [len(pixels)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}


def apply(annotations: list[dict[str, Any]], name: str, mask_format: str) -> Any:
    transforms = TRANSFORMS[name]
    return annotations_to_instances(annotations, transforms, transforms.output_size(SIZE), mask_format, True)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_form_gives_the_same_mask(name: str) -> None:
    """Polygons, drawn polygons and RLE give masks that only differ at the outline."""
    objects = [annotation(HEXAGON), annotation(HEXAGON, TRIANGLE)]
    size = TRANSFORMS[name].output_size(SIZE)
    polygons = apply(objects, name, "polygon")
    drawn = apply(objects, name, "bitmask")
    decoded = apply([{**a, "segmentation": rle(*a["segmentation"])} for a in objects], name, "bitmask")
    assert isinstance(polygons.gt_masks, PolygonMasks) and isinstance(drawn.gt_masks, BitMasks)
    assert len(polygons) == len(drawn) == len(decoded) == 2
    assert torch.equal(BitMasks.from_polygon_masks(polygons.gt_masks, *size).tensor, drawn.gt_masks.tensor)
    union = (drawn.gt_masks.tensor | decoded.gt_masks.tensor).sum((1, 2))
    both = (drawn.gt_masks.tensor & decoded.gt_masks.tensor).sum((1, 2))
    assert (both / union > 0.93).all()
    assert polygons.gt_masks.area().tolist() == pytest.approx(drawn.gt_masks.tensor.sum((1, 2)).tolist(), rel=0.04)
    for other in (drawn, decoded):
        assert (polygons.gt_boxes.tensor - other.gt_boxes.tensor).abs().max() <= 3


def test_uncompressed_and_crowd_run_lengths_from_a_file(coco_set: Any) -> None:
    mask = coco_mask.decode(rle(HEXAGON))
    first, second, third, *_ = coco_set.content["annotations"]
    first["segmentation"] = uncompressed(mask)
    second["segmentation"] = {"size": list(SIZE), "counts": rle(HEXAGON)["counts"].decode()}
    third.update(segmentation=uncompressed(np.ones((80, 60), np.uint8)), iscrowd=1)
    coco_set.write()
    records = load_coco_json(coco_set.json, coco_set.images)
    mapper = DatasetMapper([], mask_format="bitmask")
    masks = mapper(records[0], np.random.default_rng(0))["instances"].gt_masks
    assert np.array_equal(masks.tensor, np.stack([mask, mask]).astype(bool))
    # The second image has a crowd region and an object without a mask.
    assert len(mapper(records[1], np.random.default_rng(0))["instances"]) == 0


def test_a_crop_tightens_boxes_and_drops_what_it_cut_away() -> None:
    """The window only shows the tip of the triangle, which is narrower than the part of its box in the window."""
    objects = [annotation(TRIANGLE), annotation(HEXAGON)]
    for mask_format in ("polygon", "bitmask"):
        crop = TransformList([Crop(30, 48, (30, 32))])
        found = annotations_to_instances(objects, crop, (30, 32), mask_format, boxes_from_masks=True)
        (box,) = found.gt_boxes.tensor.tolist()
        assert box == pytest.approx([7, 0, 20, 20], abs=1.1)
        assert found.gt_masks.nonempty().tolist() == [True]


def test_loader_gives_masks_whatever_the_workers(shapes_cfg: Callable) -> None:
    for mask_format, kind in (("polygon", PolygonMasks), ("bitmask", BitMasks)):
        options = ("MODEL.MASK_ON", True, "INPUT.MASK_FORMAT", mask_format, "INPUT.CROP.ENABLED", True)
        batches = [
            list(itertools.islice(build_train_loader(shapes_cfg(*options, "DATALOADER.NUM_WORKERS", w)), 2))
            for w in (0, 2)
        ]
        for one, two in zip(*(itertools.chain.from_iterable(b) for b in batches)):
            target, twin = one["instances"], two["instances"]
            assert isinstance(target.gt_masks, kind) and target.gt_masks.nonempty().all()
            boxes = target.gt_boxes.tensor
            crops = [t.gt_masks.crop_and_resize(boxes, 14) for t in (target, twin)]
            assert torch.equal(*crops) and crops[0].flatten(1).any(1).all()
            tight = target.gt_masks.get_bounding_boxes().tensor
            assert torch.equal(boxes, tight)
    (batch,) = itertools.islice(build_train_loader(shapes_cfg()), 1)
    assert not any(x["instances"].has("gt_masks") for x in batch)
    for with_targets in (False, True):
        (x,) = next(iter(build_test_loader(shapes_cfg("MODEL.MASK_ON", True), "shapes_val", with_targets=with_targets)))
        assert ("instances" in x) == with_targets
    assert x["instances"].has("gt_masks")


def mask_cfg(shapes_cfg: Callable, name: str, *overrides: Any) -> Any:
    return shapes_cfg(
        "DATASETS.TRAIN",
        (name,),
        "DATASETS.TEST",
        (name,),
        "MODEL.ROI_HEADS.NUM_CLASSES",
        2,
        "SOLVER.IMS_PER_BATCH",
        1,
        "MODEL.MASK_ON",
        True,
        *overrides,
    )


def test_data_without_masks_is_refused(coco_name: str, shapes_cfg: Callable) -> None:
    cfg = mask_cfg(shapes_cfg, coco_name)
    words = (
        r"MODEL\.MASK_ON, .*asks for masks, but none of the 6 objects of data set 'tiny_coco' has one .*turn masks off"
    )
    with pytest.raises(UserError, match=words):
        build_train_loader(cfg)
    with pytest.raises(UserError, match=words):
        build_test_loader(cfg, coco_name, with_targets=True)
    with pytest.raises(UserError, match=r"MODEL\.MASK_ON, .* objects of the training data"):
        build_train_loader(cfg, dataset_dicts=get_dataset_dicts(coco_name))
    build_test_loader(cfg, coco_name)  # boxes can still be evaluated


def test_objects_without_masks_are_left_out_and_counted(
    coco_set: Any, coco_name: str, shapes_cfg: Callable, caplog: Any
) -> None:
    """The reader reports malformed masks, and the loader leaves out their objects and the images without objects."""
    broken = {
        "rle size": {"size": [61, 80], "counts": [4880]},
        "runs": {"size": [80, 60], "counts": [10, 20]},
        "polygon": [[1.0, 2.0, 3.0, 4.0]],
        "text": "mask",
    }
    coco_set.content["annotations"][0]["segmentation"] = [HEXAGON]
    for target, segmentation in zip(coco_set.content["annotations"][1:], broken.values()):
        target["segmentation"] = segmentation
    coco_set.write()
    loader = build_train_loader(mask_cfg(shapes_cfg, coco_name))
    assert "'tiny_coco': 5 of 6 objects are left out for want of a mask, the first one in" in caplog.text
    for words in (
        "RLE has size [61, 80], the image is [60, 80]",
        "add up to 30",
        "no polygon with at least 3 points",
        "segmentation is str",
    ):
        assert words in caplog.text
    assert loader.num_images == 1
    (x,) = next(iter(loader))
    assert len(x["instances"].gt_masks) == 1


def test_run_lengths_need_bitmaps(coco_set: Any, coco_name: str, shapes_cfg: Callable) -> None:
    coco_set.content["annotations"][0]["segmentation"] = uncompressed(coco_mask.decode(rle(HEXAGON)))
    coco_set.write()
    with pytest.raises(UserError, match=r"INPUT\.MASK_FORMAT: 'polygon' .*1\.jpg; set it to 'bitmask'"):
        build_train_loader(mask_cfg(shapes_cfg, coco_name))
    (x,) = next(iter(build_train_loader(mask_cfg(shapes_cfg, coco_name, "INPUT.MASK_FORMAT", "bitmask"))))
    assert x["instances"].gt_masks.image_size == x["instances"].image_size
    with pytest.raises(ArgumentError, match=r"^mask_format: 'polygon' .*1\.jpg; set it to 'bitmask'"):
        get_dataset_dicts(coco_name, mask_format="polygon")
    with pytest.raises(ArgumentError, match=r"^mask_format: unknown value 'bitmsk'"):
        DatasetMapper([], mask_format="bitmsk")
    with pytest.raises(UserError, match=r"^INPUT\.MASK_FORMAT: unknown value 'bitmsk'; did you mean 'bitmask'"):
        build_train_loader(mask_cfg(shapes_cfg, coco_name, "INPUT.MASK_FORMAT", "bitmsk"))


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [61, 80], "counts": [4880]}, r"RLE has size \[61, 80\], the image is \[60, 80\]"),
        ({"size": [60, 80], "counts": b"zz"}, "RLE counts string"),
        ([[1.0, 2.0, 3.0]], "no polygon with at least 3 points"),
        (7, "segmentation is int"),
        (np.ones(SIZE, np.uint8), r"segmentation is an array of the shape \(60, 80\), .*pycocotools\.mask\.encode"),
        ([((1, 2), (3,))], "a polygon that is not a list of finite numbers"),
    ],
)
def test_masks_from_a_function_of_the_users_own(coco_set: Any, segmentation: Any, words: str) -> None:
    """The mapper checks masks that no reader has checked, because pycocotools would crash on some of them."""
    record = load_coco_json(coco_set.json, coco_set.images)[0]
    record["annotations"][0]["segmentation"] = segmentation
    with pytest.raises(UserError, match=rf"1\.jpg: .*{words}"):
        DatasetMapper([], mask_format="bitmask")(record, np.random.default_rng(0))


@pytest.mark.parametrize(
    "segmentation",
    [
        [np.array(HEXAGON)],
        [np.reshape(HEXAGON, (-1, 1, 2))],  # as OpenCV's contours
        (tuple(HEXAGON),),
        {**rle(HEXAGON), "size": SIZE},
        {"size": np.array(SIZE), "counts": np.array(uncompressed(coco_mask.decode(rle(HEXAGON)))["counts"])},
    ],
)
def test_arrays_and_tuples_are_masks(coco_set: Any, segmentation: Any, registered: None) -> None:
    """Detectron2 takes them, too."""
    record = load_coco_json(coco_set.json, coco_set.images)[0]
    record["annotations"][0]["segmentation"] = segmentation
    DatasetCatalog.register("mine", lambda: [record])
    MetadataCatalog.get("mine").set(thing_classes=["cat", "dog"])
    (checked,) = get_dataset_dicts("mine", mask_format="bitmask")
    assert checked["annotations"][0]["segmentation"] == as_lists(segmentation)
    for given in (record, checked):
        found = DatasetMapper([], mask_format="bitmask")(given, np.random.default_rng(0))["instances"]
        assert np.array_equal(found.gt_masks.tensor[0], coco_mask.decode(rle(HEXAGON)))


@pytest.mark.parametrize("name", ["rle_malformed", "polygon_too_short"])
def test_corpus_of_broken_masks(shared_data: Path, name: str, caplog: Any) -> None:
    """The object with the broken mask is named and left out, and the other five are used."""
    bad = shared_data / "bad"
    case = {c["case"]: c for c in json.loads((bad / "cases.json").read_text())}[name]
    records = load_coco_json(bad / case["files"][0], bad / case["image_root"])
    assert "annotation 2" in caplog.text
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.MASK_ON", True, "INPUT.MASK_FORMAT", "bitmask"])
    mapper = build_mapper(cfg, is_train=True)
    targets = [mapper(r, np.random.default_rng(0))["instances"] for r in records]
    with_masks = sum(bool(a.get("segmentation")) for r in records for a in r["annotations"])
    assert sum(map(len, targets)) == with_masks < sum(len(r["annotations"]) for r in records)


def _theirs(transform: Any, T: Any) -> Any:
    if isinstance(transform, Crop):
        return T.CropTransform(transform.x0, transform.y0, *transform.size[::-1])
    if isinstance(transform, Pad):
        bottom, right = (whole - part for whole, part in zip(transform.size, SIZE))
        before = transform.x0, transform.y0
        after = right - transform.x0, bottom - transform.y0
        return T.PadTransform(*before, *after, *SIZE[::-1], seg_pad_value=0)
    if isinstance(transform, Resize):
        return T.ResizeTransform(*transform.old, *transform.new)
    return T.VFlipTransform(transform.size[0]) if transform.vertical else T.HFlipTransform(transform.size[1])


@pytest.mark.detectron2
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_targets_as_detectron2_makes_them(name: str, mask_format: str) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    if any(isinstance(t, Crop) for t in TRANSFORMS[name]):
        pytest.importorskip("shapely", reason="Detectron2 cuts polygons with shapely, which is not installed")
    from detectron2.data import detection_utils
    from detectron2.data import transforms as T

    objects = [annotation(HEXAGON), annotation(HEXAGON, TRIANGLE), annotation(TRIANGLE)]
    if mask_format == "bitmask":
        objects[2]["segmentation"] = rle(TRIANGLE)
    size = TRANSFORMS[name].output_size(SIZE)
    theirs = T.TransformList([_theirs(t, T) for t in TRANSFORMS[name]])
    moved = [detection_utils.transform_instance_annotations(dict(a), theirs, size) for a in objects]
    expected = detection_utils.annotations_to_instances(moved, size, mask_format)
    found = annotations_to_instances(objects, TRANSFORMS[name], size, mask_format)
    np.testing.assert_allclose(found.gt_boxes.tensor, expected.gt_boxes.tensor, rtol=0, atol=1e-5)
    boxes = found.gt_boxes.tensor
    targets, goal = (x.gt_masks.crop_and_resize(boxes, 28) for x in (found, expected))
    assert (targets != goal).sum() <= (10 if name in ("crop", "all") else 0)  # Detectron2 clips with shapely
    tight, their_tight = (x.gt_masks.get_bounding_boxes().tensor for x in (found, expected))
    np.testing.assert_allclose(tight, their_tight, rtol=0, atol=1e-4)
    assert found.gt_masks.nonempty().tolist() == expected.gt_masks.nonempty().tolist()
