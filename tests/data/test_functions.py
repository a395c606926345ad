"""Tests of data sets that come from a function of the user's own, which no reader has checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sn2fpn.data import get_dataset_dicts
from sn2fpn.data.catalog import DatasetCatalog, MetadataCatalog
from sn2fpn.data.check import check_dataset
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator
from sn2fpn.structures import BoxMode

_GOOD = {"bbox": [1.0, 2.0, 30.0, 40.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Register a data set with one image, whose objects are a good one and one with changes."""

    def add(changes: dict[str, Any]) -> str:
        image = {"file_name": "1.jpg", "image_id": 1, "height": 50, "width": 50}
        DatasetCatalog.register("mine", lambda: [image | {"annotations": [_GOOD, _GOOD | changes]}])
        MetadataCatalog.get("mine").set(thing_classes=["a", "b"])
        return "mine"

    yield add
    DatasetCatalog.remove("mine")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bbox": [1.0, float("nan"), 3.0, 4.0]}, "bbox: expected finite numbers, found [1.0, nan, 3.0, 4.0]"),
        ({"bbox": np.array([1, 2, np.inf, 4])}, "bbox: expected finite numbers"),
        ({"bbox": [-np.inf, 2, np.inf, 4]}, "bbox: expected finite numbers"),
        ({"bbox": None}, "bbox: expected 4 numbers for each box, found None"),
        ({"bbox": [1.0, 2.0, 3.0]}, "bbox: expected 4 numbers for each box"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4], "bbox_mode": BoxMode.XYXY_REL}, "bbox_mode: XYXY_REL (2) holds shares"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4], "bbox_mode": 3}, "bbox_mode: XYWH_REL (3) holds shares"),
        ({"bbox": ["1", "2", "3", "4"]}, "bbox: expected 4 numbers for each box"),
        ({"bbox_mode": 9}, "bbox_mode: there is no box mode 9"),
        ({"bbox_mode": None}, "bbox_mode: there is no box mode None"),
        ({"category_id": 2}, "category_id: expected 0 to 1, found 2"),
        ({"category_id": -1}, "category_id: expected 0 to 1, found -1"),
        ({"category_id": 0.5}, "category_id: expected 0 to 1, found 0.5"),
        ({"iscrowd": "maybe"}, "iscrowd: expected 0 or 1, found 'maybe'"),
        ({"segmentation": np.ones((50, 50))}, "segmentation is an array of the shape (50, 50), expected"),
        ({"area": "large"}, "area: expected a number of square pixels, found 'large'"),
        ({"area": float("nan")}, "area: expected a number of square pixels, found nan"),
        ({"segmentation": 7}, "segmentation is int, expected polygons or RLE"),
        ({"segmentation": [[1.0, 2.0, 3.0]]}, "segmentation has no polygon with at least 3 points (numbers: [3])"),
        (
            {"segmentation": {"size": [9, 9], "counts": [81]}},
            "segmentation: RLE has size [9, 9], the image is [50, 50]",
        ),
    ],
)
def test_wrong_objects_are_one_message_when_the_data_set_is_loaded(
    changes: dict[str, Any], words: str, register: Callable[..., str]
) -> None:
    name = register(changes)
    for part in (name, f"{name}[:1]"):
        with pytest.raises(UserError) as e:
            get_dataset_dicts(part, filter_empty=True, where="DATASETS.TRAIN")
        assert str(e.value).startswith(f"DATASETS.TRAIN: data set 'mine': 1.jpg: annotations[1].{words}")
    for kind in (COCOEvaluator, PascalVOCEvaluator):
        evaluator = kind(name)
        with pytest.raises(UserError, match=r"annotations\[1\]"):
            evaluator.evaluate()
    (problem,) = [p for p in check_dataset(name)[1] if not p.is_note]
    assert words in problem.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": (1, 2, 3, 4), "bbox_mode": 1, "category_id": np.int64(1)},
        {"bbox": np.array([1, 2, 30, 40])},
        {"bbox": [25.0, 25.0, 10.0, 20.0, 45.0], "bbox_mode": BoxMode.XYWHA_ABS},
    ],
)
def test_all_forms_of_boxes_in_pixels_pass(changes: dict[str, Any], register: Callable[..., str]) -> None:
    (record,) = get_dataset_dicts(register(changes), filter_empty=True)
    assert len(record["annotations"]) == 2


def test_whole_numbers_and_flags_in_other_forms_become_plain(register: Callable[..., str]) -> None:
    changes = {"category_id": 1.0, "iscrowd": "0", "difficult": 1.0}
    (record,) = get_dataset_dicts(register(changes), filter_empty=True)
    found = record["annotations"][1]
    assert [(found[key], type(found[key])) for key in changes] == [(1, int), (0, int), (1, int)]


def test_a_polygon_outside_the_image_is_no_mask(register: Callable[..., str]) -> None:
    """Tiles of large pictures have such polygons. Detectron2 leaves their objects out when it trains masks."""
    name = register({"segmentation": [[60.0, 60.0, 70.0, 60.0, 70.0, 70.0]]})
    (record,) = get_dataset_dicts(name, filter_empty=True)
    assert [a.get("segmentation") for a in record["annotations"]] == [None, []]
    whole = {"segmentation": [[1.0, 2.0, 30.0, 2.0, 30.0, 40.0]], "iscrowd": 0}
    DatasetCatalog.remove("mine")
    (record,) = get_dataset_dicts(register(whole), filter_empty=True)
    assert record["annotations"][1]["segmentation"] == whole["segmentation"]


def test_an_area_of_none_is_no_area(register: Callable[..., str]) -> None:
    name = register({"area": None})
    (record,) = get_dataset_dicts(name, filter_empty=True)
    assert "area" not in record["annotations"][1]
    COCOEvaluator(name).judge([])
