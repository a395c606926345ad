"""Tests of the catalog: slices of data sets."""

from __future__ import annotations

import pytest

from sn2fpn.data import DatasetCatalog, MetadataCatalog, class_names, get_dataset_dicts
from sn2fpn.errors import UserError

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
