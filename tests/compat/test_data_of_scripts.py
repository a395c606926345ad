"""Tests of transforms, mappers and loaders of scripts: they give what this package's own and Detectron2 give."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.compat.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from sn2fpn.compat.data import detection_utils as utils
from sn2fpn.compat.data import transforms as T
from sn2fpn.compat.data.datasets import load_coco_json
from sn2fpn.compat.data.samplers import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler
from sn2fpn.data import build_mapper
from sn2fpn.errors import ArgumentError, UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def _transforms() -> dict[str, Any]:
    return {
        "resize": T.ResizeTransform(40, 60, 80, 90),
        "flip": T.HFlipTransform(60),
        "vertical": T.VFlipTransform(40),
        "crop": T.CropTransform(10, 5, 30, 20),
        "nothing": T.NoOpTransform(),
        "blend": T.BlendTransform(10, 0.25, 0.75),
    }


def _equal_targets(a: Any, b: Any) -> None:
    assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor) and torch.equal(a.gt_classes, b.gt_classes)
    polygons = [[p.tolist() for of_object in x.gt_masks.polygons for p in of_object] for x in (a, b)]
    assert polygons[0] == polygons[1]


def test_a_transform_of_ones_own_moves_boxes_and_polygons_by_their_points() -> None:
    class Turn(T.Transform):
        """Turns an image of width 60 by 90 degrees, counter-clockwise."""

        def apply_image(self, img: np.ndarray) -> np.ndarray:
            return np.rot90(img)

        def apply_coords(self, coords: np.ndarray) -> np.ndarray:
            return np.stack([coords[:, 1], 60 - coords[:, 0]], axis=1)

    moves = T.TransformList([Turn(), T.TransformList([T.HFlipTransform(40)])])
    assert len(moves) == 2 and moves.apply_image(IMAGE).shape == (60, 40, 3)
    assert moves.apply_box(np.array([[10, 5, 30, 25]])).tolist() == [[15, 30, 35, 50]]
    assert moves.apply_polygons([np.array([[10, 5], [30, 5], [30, 25]])])[0].tolist() == [[35, 50], [35, 30], [15, 30]]
    assert moves.apply_segmentation(IMAGE[:, :, 0]).tolist() == moves.apply_image(IMAGE)[:, :, 0].tolist()


def test_transforms_of_ones_own_keep_their_arguments_and_lists_are_added() -> None:
    class Shift(T.Transform):
        def __init__(self, dx: float, dy: float = 0.0) -> None:
            super().__init__()
            self._set_attributes(locals())

        def apply_coords(self, coords: np.ndarray) -> np.ndarray:
            return np.add(coords, (self.dx, self.dy))

    flip = T.HFlipTransform(60)
    for moves in (
        T.TransformList([Shift(3)]) + T.TransformList([flip]),
        T.TransformList([Shift(3)]) + flip,
        Shift(3) + T.TransformList([flip]),
        operator.add([Shift(3)], T.TransformList([flip])),
    ):
        assert isinstance(moves, T.TransformList) and len(moves) == 2
        assert moves.apply_coords(np.array([[10.0, 5.0]])).tolist() == [[47, 5]]
    moves = T.TransformList([Shift(3)])
    moves += flip
    assert moves.apply_coords(np.array([[10.0, 5.0]])).tolist() == [[47, 5]]


@pytest.mark.parametrize("name", ["resize", "flip", "vertical", "nothing"])
def test_inverse_transforms_bring_points_back(name: str) -> None:
    points = np.array([[3.0, 4.0], [50.0, 30.0]])
    there = T.TransformList([_transforms()[name], T.HFlipTransform(11)])
    np.testing.assert_allclose(there.inverse().apply_coords(there.apply_coords(points)), points)


def test_augmentations_see_what_the_ones_before_have_made() -> None:
    class Half(T.Augmentation):
        def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
            assert image.shape[:2] == sem_seg.shape == (20, 30)
            return T.ResizeTransform(20, 30, 10, 15)

    inputs = T.AugInput(IMAGE, boxes=np.array([[0.0, 0, 60, 40]]), sem_seg=IMAGE[:, :, 0])
    moves = T.AugmentationList([T.Resize((20, 30)), T.RandomApply(T.HFlipTransform(30), prob=1.0), Half()])(inputs)
    assert [type(m).__name__ for m in moves] == ["ResizeTransform", "HFlipTransform", "ResizeTransform"]
    assert inputs.image.shape == (10, 15, 3) and inputs.boxes.tolist() == [[0, 0, 15, 10]]
    with pytest.raises(TypeError, match=r"Broken\.get_transform: expected a Transform, found NoneType"):

        class Broken(T.Augmentation):
            def get_transform(self, image: np.ndarray) -> None: ...

        Broken()(inputs)
    assert repr(T.RandomFlip(prob=0.25)) == "RandomFlip(prob=0.25)"
    image, flips = T.apply_augmentations([T.RandomFlip(prob=1.0, horizontal=False, vertical=True)], IMAGE)
    assert np.array_equal(image, IMAGE[::-1]) and len(flips) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: T.RandomFlip(horizontal=True, vertical=True), "vertical: expected one direction"),
        (lambda: T.Resize(20, interp=0), "interp: expected PIL's bilinear filter"),
        (lambda: T.RandomApply(3), "tfm_or_aug: expected an Augmentation or a Transform, found int"),
        (lambda: T.AugmentationList([T.NoOpTransform(), len]), r"augs\[1\]: expected an Augmentation"),
        (lambda: T.ResizeShortestEdge((800, 600)), "short_edges: expected .min, max. for the sampling 'range'"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make()


@pytest.mark.detectron2
def test_transforms_are_those_of_detectron2() -> None:
    theirs = pytest.importorskip("detectron2.data.transforms", reason="Detectron2 is not installed")
    boxes = np.array([[1.0, 2, 30, 40], [5, 5, 20, 10]])
    expected = {
        "resize": theirs.ResizeTransform(40, 60, 80, 90),
        "flip": theirs.HFlipTransform(60),
        "vertical": theirs.VFlipTransform(40),
        "crop": theirs.CropTransform(10, 5, 30, 20),
        "nothing": theirs.NoOpTransform(),
        "blend": theirs.BlendTransform(np.array(10), 0.25, 0.75),
    }
    for name, ours in _transforms().items():
        assert np.array_equal(ours.apply_image(IMAGE), expected[name].apply_image(IMAGE)), name
        np.testing.assert_allclose(ours.apply_box(boxes), expected[name].apply_box(boxes), rtol=1e-6)
        np.testing.assert_allclose(ours.apply_coords(boxes[:, :2]), expected[name].apply_coords(boxes[:, :2].copy()))
    for name, arguments in (
        ("RandomBrightness", (0.5, 1.5)),
        ("RandomContrast", (0.5, 1.5)),
        ("RandomSaturation", (0.5, 1.5)),
        ("RandomFlip", ()),
    ):
        for seed in range(3):
            drawn = []
            for module in (T, theirs):
                np.random.seed(seed)
                drawn.append(getattr(module, name)(*arguments).get_transform(IMAGE).apply_image(IMAGE))
            assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1, name


def test_the_mapper_of_a_configuration_gives_what_the_own_one_gives(small_cfg: Any, records: Any) -> None:
    cfg = small_cfg(INPUT__RANDOM_FLIP="none")
    before = copy.deepcopy(records)
    for is_train in (True, False):
        ours = build_mapper(cfg, is_train)(records[0], np.random.default_rng(0))
        found = DatasetMapper(cfg, is_train=is_train)(records[0])
        assert torch.equal(found["image"], ours["image"]) and found.keys() == ours.keys()
        if is_train:
            _equal_targets(found["instances"], ours["instances"])
    assert records == before
    flipped = DatasetMapper(cfg, is_train=True, augmentations=[T.RandomFlip(prob=1.0)])(records[0])
    assert flipped["image"].shape == (3, 48, 64)
    assert flipped["instances"].gt_boxes.tensor.tolist() == [[30, 6, 60, 26]]


def test_the_mapper_takes_masks_of_any_form(small_cfg: Any, records: Any) -> None:
    cfg = small_cfg(INPUT__RANDOM_FLIP="none", MODEL__MASK_ON=True)
    (found,) = records[0]["annotations"]
    found["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    expected = DatasetMapper(cfg, is_train=True)(records[0])
    found["segmentation"] = found["segmentation"][0]
    _equal_targets(DatasetMapper(cfg, is_train=True)(records[0])["instances"], expected["instances"])
    found["segmentation"] = [[1, 2]]
    with pytest.raises(UserError, match="segmentation has no polygon with at least 3 points"):
        DatasetMapper(cfg, is_train=True)(records[0])


def _mapper_of_ones_own(record: dict[str, Any]) -> dict[str, Any]:
    """The mapper that Detectron2's documentation describes, in a few lines."""
    record = copy.deepcopy(record)
    inputs = T.AugInput(utils.read_image(record["file_name"], format="BGR"))
    moves = T.AugmentationList([T.RandomBrightness(0.5, 1.5), T.RandomFlip(), T.Resize((64, 80))])(inputs)
    objects = [utils.transform_instance_annotations(a, moves, (64, 80)) for a in record.pop("annotations")]
    record["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
    record["instances"] = utils.filter_empty_instances(utils.annotations_to_instances(objects, (64, 80)))
    return record


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_mapper_of_ones_own_gives_the_same_images_with_any_number_of_workers(small_cfg: Any, workers: int) -> None:
    cfg = small_cfg(SEED=5, DATALOADER__NUM_WORKERS=workers)
    state = np.random.get_state()[1].tolist()
    loader = build_detection_train_loader(cfg, mapper=_mapper_of_ones_own)
    batches = list(itertools.islice(iter(loader), 4))
    assert np.random.get_state()[1].tolist() == state  # the global generators are as they were
    assert {x["image"].shape for batch in batches for x in batch} == {(3, 64, 80)}
    sums = [float(x["image"].float().mean()) for batch in batches for x in batch]
    assert len(set(sums)) == 8  # each image has random numbers of its own
    again = build_detection_train_loader(small_cfg(SEED=5), mapper=_mapper_of_ones_own)
    assert [float(x["image"].float().mean()) for b in itertools.islice(iter(again), 4) for x in b] == sums


@pytest.mark.detectron2
def test_the_mapper_is_detectron2s(small_cfg: Any, records: Any) -> None:
    theirs = pytest.importorskip("detectron2.data", reason="Detectron2 is not installed")
    for seed in range(4):
        found = []
        for mapper, module in ((DatasetMapper, T), (theirs.DatasetMapper, theirs.transforms)):
            augmentations = [module.RandomFlip(), module.ResizeShortestEdge((96, 96), 200)]
            arguments = dict(augmentations=augmentations, image_format="BGR", use_instance_mask=True)
            np.random.seed(seed)
            found.append(mapper(is_train=True, **arguments)(records[seed]))
        assert torch.equal(found[0]["image"], found[1]["image"])
        torch.testing.assert_close(found[0]["instances"].gt_boxes.tensor, found[1]["instances"].gt_boxes.tensor)
        assert np.allclose(found[0]["instances"].gt_masks.polygons[0], found[1]["instances"].gt_masks.polygons[0])


def test_annotations_of_all_kinds_become_targets() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 5:25] = 1
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask))
    crowd = {"bbox": [5, 10, 20, 10], "bbox_mode": 1, "category_id": 1, "iscrowd": 1, "segmentation": rle}
    moved = utils.transform_instance_annotations(copy.deepcopy(crowd), [T.HFlipTransform(60)], (40, 60))
    assert moved["bbox"].tolist() == [35, 10, 55, 20] and np.array_equal(moved["segmentation"], mask[:, ::-1])
    targets = utils.annotations_to_instances([moved, moved], (40, 60), mask_format="bitmask")
    assert len(targets) == 2 and np.array_equal(targets.gt_masks.tensor[1].numpy(), mask[:, ::-1] > 0)
    assert utils.annotations_to_instances([], (40, 60)).image_size == (40, 60)
    targets.gt_masks.tensor[0] = False
    kept, which = utils.filter_empty_instances(targets, return_mask=True)
    assert len(kept) == 1 and which.tolist() == [False, True]
    with pytest.raises(utils.SizeMismatchError, match=r"a.png: the image has the \(height, width\) \(40, 60\)"):
        utils.check_image_size({"file_name": "a.png", "height": 40, "width": 61}, IMAGE)


def test_loaders_take_lists_and_samplers(small_cfg: Any, records: Any, rectangles: str) -> None:
    plain = build_detection_train_loader(
        dataset=records, mapper=_mapper_of_ones_own, sampler=TrainingSampler(6, shuffle=False), total_batch_size=3
    )
    first, second = itertools.islice(iter(plain), 2)
    assert [x["image_id"] for x in first + second] == [0, 1, 2, 3, 4, 5]
    sampler = RepeatFactorTrainingSampler(torch.tensor([0.0, 0, 1, 0, 0, 0]), seed=0)
    drawn = itertools.islice(iter(build_detection_train_loader(small_cfg(), sampler=sampler)), 2)
    assert [x["image_id"] for batch in drawn for x in batch] == [2, 2, 2, 2]
    by_name = build_detection_test_loader(small_cfg(), rectangles)
    by_list = build_detection_test_loader(records, mapper=DatasetMapper(small_cfg(), is_train=False))
    for a, b in zip(by_name, by_list, strict=True):
        assert torch.equal(a[0]["image"], b[0]["image"])
    with_targets = build_detection_test_loader(small_cfg(), rectangles, mapper=DatasetMapper(small_cfg(), True))
    assert all("instances" in batch[0] for batch in with_targets)
    assert len(get_detection_dataset_dicts([rectangles])) == 6
    for call, words in (
        (lambda: build_detection_test_loader(records), "mapper: expected a value"),
        (lambda: build_detection_test_loader(small_cfg()), "dataset_name: expected a value"),
        (lambda: build_detection_test_loader(small_cfg(), rectangles, batch_size=2), "batch_size: expected 1"),
        (lambda: build_detection_train_loader(records, mapper=len), "total_batch_size: expected a value"),
        (
            lambda: build_detection_train_loader(records, mapper=len, sampler=TrainingSampler(6), total_batch_size=0),
            "total_batch_size: expected a multiple of the number of processes",
        ),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()


def test_samplers_give_the_indices_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from sn2fpn import distributed

    whole = list(itertools.islice(TrainingSampler(7, seed=3), 14))
    assert sorted(whole[:7]) == sorted(whole[7:]) == list(range(7)) and whole[:7] != whole[7:]
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
        shares.append(list(itertools.islice(TrainingSampler(7, seed=3), 7)))
        assert list(InferenceSampler(5)) == [[0, 1, 2], [3, 4]][rank]
    assert [x for pair in zip(*shares) for x in pair] == whole
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        [{"annotations": [{"category_id": 0}]}] * 3 + [{"annotations": [{"category_id": 1}]}], 0.5
    )
    assert factors.tolist() == pytest.approx([1, 1, 1, 2**0.5])


def test_a_mapper_that_returns_none_leaves_the_image_out(records: Any) -> None:
    def even(record: dict[str, Any]) -> dict[str, Any] | None:
        return record if record["image_id"] % 2 == 0 else None

    loader = build_detection_train_loader(records, mapper=even, total_batch_size=6)
    (first,), (again,) = (itertools.islice(loader, 1) for _ in range(2))
    ids = [image["image_id"] for image in first]
    assert len(ids) == 6 and {*ids} <= {0, 2, 4} and ids == [image["image_id"] for image in again]
    with pytest.raises(UserError, match="mapper: expected a model input, found None for 1000 images"):
        next(iter(build_detection_train_loader(records, mapper=lambda record: None, total_batch_size=1)))


def test_neutral_values_are_taken_and_others_are_refused_by_name(rectangles: str, tmp_path: Path, records: Any) -> None:
    assert len(get_detection_dataset_dicts(rectangles, True, 0, None, True)) == 6
    annotation, file = records[0]["annotations"][0], tmp_path / "none.json"
    utils.transform_instance_annotations(annotation, T.NoOpTransform(), (48, 64), keypoint_hflip_indices=None)
    given = {"mapper": len, "total_batch_size": 1, "collate_fn": None}
    assert build_detection_train_loader(records, **given).seed >= 0
    for call, words in (
        (lambda: get_detection_dataset_dicts(rectangles, min_keypoints=2), "min_keypoints: expected 0, found 2"),
        (lambda: DatasetMapper(True, augmentations=[], use_keypoint=True), "use_keypoint: expected False, found True"),
        (
            lambda: DatasetMapper(True, augmentations=[], precomputed_proposal_topk=2),
            "precomputed_proposal_topk: expected None, found 2",
        ),
        (
            lambda: get_detection_dataset_dicts(rectangles, proposal_files=["a"]),
            r"proposal_files: .*None, found \['a'\]",
        ),
        (lambda: load_coco_json(file, tmp_path, None, ["speed"]), r"extra_annotation_keys: .* found \['speed'\]"),
        (lambda: build_detection_train_loader(records, **given | {"collate_fn": len}), "collate_fn: expected None"),
        (lambda: build_detection_test_loader(records, mapper=len, collate_fn=len), "collate_fn: expected None"),
        (
            lambda: utils.transform_instance_annotations({}, [], (1, 1), keypoint_hflip_indices=np.arange(2)),
            "keypoint_hflip_indices: expected None",
        ),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()


def test_loaders_with_a_random_seed_differ(small_cfg: Any) -> None:
    cfg = small_cfg(SEED=-1)
    sampler = TrainingSampler(6, shuffle=False)
    seeds = [build_detection_train_loader(cfg, sampler=sampler).seed for _ in range(2)]
    assert seeds[0] != seeds[1] and build_detection_train_loader(small_cfg(SEED=5), sampler=sampler).seed == 5
