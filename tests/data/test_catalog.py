"""Tests of the catalog: slices of data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sn2fpn.data import DatasetCatalog, MetadataCatalog, class_names, get_dataset_dicts
from sn2fpn.data.catalog import share_images
from sn2fpn.data.fingerprint import dataset_fingerprint
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator
from sn2fpn.structures import BoxMode

_RECORD = {"file_name": "a.png", "height": 2, "width": 3, "image_id": 1}


def test_a_slice_of_a_set_is_a_set(coco_name: str) -> None:
    whole = DatasetCatalog.get(coco_name)
    assert len(whole) > 1
    for text, part in (("[:1]", whole[:1]), ("[1:]", whole[1:]), ("[0:2]", whole[:2])):
        name = coco_name + text
        assert name in DatasetCatalog
        assert [d["image_id"] for d in get_dataset_dicts(name)] == [d["image_id"] for d in part]
        assert class_names(name) == class_names(coco_name)
        assert MetadataCatalog.get(name).evaluator_type == MetadataCatalog.get(coco_name).evaluator_type


def test_wrong_slices_are_explained(coco_name: str) -> None:
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN: .*is empty.*images"):
        DatasetCatalog.get(f"{coco_name}[900:]", "DATASETS.TRAIN")
    with pytest.raises(UserError, match="unknown data set"):
        DatasetCatalog.get(f"{coco_name}_[:3]")
    assert f"{coco_name}_[:3]" not in DatasetCatalog


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "expected a list of dicts from its function, found NoneType"),
        ({"file_name": "a.png"}, "expected a list of dicts from its function, found dict"),
        ((x for x in ()), "found generator"),
        ([{"file_name": "a.png", "width": 3}], r"\[0\]: expected file_name, .*, found no height and no image_id"),
        ([_RECORD, 3], r"\[1\]: expected a dict that describes an image, found 3"),
        (
            [_RECORD, _RECORD | {"file_name": "b.png", "image_id": np.int64(1)}],
            r"both a\.png and b\.png have the image_id 1; expected an id of its own",
        ),
        ([_RECORD | {"image_id": [1]}], r"\[0\]: image_id: expected a number or a text, found \[1\]"),
        ([_RECORD | {"height": "2.5"}], r"\[0\]: height: expected a whole number of pixels, found '2\.5'"),
        ([_RECORD | {"width": 0}], r"\[0\]: width: expected a whole number of pixels, found 0"),
        ([_RECORD | {"file_name": None}], r"\[0\]: file_name: expected the path of an image, found None"),
        ([_RECORD | {"annotations": None}], r"\[0\]: annotations: expected a list .* found None; leave the key out"),
        ([_RECORD | {"annotations": [[1, 2]]}], r"a\.png: annotations\[0\]: expected a dict .* found \[1, 2\]"),
    ],
)
def test_a_function_that_returns_something_else_is_named(returned: object, words: str) -> None:
    DatasetCatalog.register("odd", lambda: returned)
    try:
        with pytest.raises(UserError, match=f"^DATASETS.TRAIN: data set 'odd': .*{words}"):
            DatasetCatalog.read("odd", "DATASETS.TRAIN")
    finally:
        DatasetCatalog.remove("odd")


def test_numbers_of_numpy_and_paths_become_plain() -> None:
    """Tables of pandas and NumPy give such numbers, which JSON files of results cannot hold."""
    box = {"bbox": [0.0, 0.0, 2.0, 1.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    plain = _RECORD | {"annotations": [box]}
    odd_box = box | {"category_id": np.int64(0), "iscrowd": np.uint8(0), "bbox_mode": np.int64(0)}
    odd = {"file_name": Path("a.png"), "height": np.int32(2), "width": "3", "image_id": np.int64(1)}
    DatasetCatalog.register("odd", lambda: [odd | {"annotations": [odd_box]}])
    try:
        found = DatasetCatalog.get("odd")
    finally:
        DatasetCatalog.remove("odd")
    assert json.loads(json.dumps(found)) == json.loads(json.dumps([plain]))
    assert dataset_fingerprint(found) == dataset_fingerprint([plain])
    assert type(odd["image_id"]) is np.int64  # what the function has returned is not changed


def test_an_image_may_be_given_several_times_for_training_but_not_for_evaluation() -> None:
    DatasetCatalog.register("repeated_mine", lambda: [_RECORD | {"annotations": []}] * 3)
    MetadataCatalog.get("repeated_mine").set(thing_classes=["a"])
    try:
        assert len(DatasetCatalog.get("repeated_mine")) == 3
        with pytest.raises(UserError, match=r"'repeated_mine': expected each image once, found 1 several times"):
            COCOEvaluator("repeated_mine").judge([])
    finally:
        DatasetCatalog.remove("repeated_mine")


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a[:5]", "a", True),
        ("a[:5]", "a[5:]", False),
        ("a[:5]", "a[4:9]", True),
        ("a[2:3]", "b[2:3]", False),
        ("a[7:]", "a[100:]", True),
    ],
)
def test_names_that_share_images(one: str, other: str, shared: bool) -> None:
    assert share_images(one, other) is share_images(other, one) is shared
