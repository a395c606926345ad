"""Tests of class names when the data may be missing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from sn2fpn.data import VOC_CLASSES, DatasetCatalog, known_categories, register_custom
from sn2fpn.data import categories as module
from sn2fpn.data.categories import COCO_CATEGORIES


@pytest.fixture
def json_set(tmp_path: Path) -> Path:
    """The annotation file of the data set "categories_custom", whose ids are neither sorted nor contiguous."""
    file = tmp_path / "custom.json"
    file.write_text(json.dumps({"categories": [{"id": 7, "name": "late"}, {"id": 3, "name": "early"}]}))
    register_custom([{"NAME": "categories_custom", "FORMAT": "coco", "JSON": str(file), "IMAGES": str(tmp_path)}])
    yield file
    DatasetCatalog.remove("categories_custom")


def test_an_annotation_file_is_read_if_it_is_small(json_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = [{"id": 3, "name": "early"}, {"id": 7, "name": "late"}]
    assert known_categories(["categories_custom[:2]"], 2) == read
    monkeypatch.setattr(module, "_LARGE_BYTES", 10)
    assert known_categories(["categories_custom"], 2) == [{"id": 0, "name": "class 0"}, {"id": 1, "name": "class 1"}]


def test_a_name_with_brackets_is_no_slice(json_set: Path) -> None:
    entry = {"NAME": "categories[v2]", "FORMAT": "coco", "JSON": str(json_set), "IMAGES": str(json_set.parent)}
    register_custom([entry])
    try:
        for name in ("categories[v2]", "categories[v2][:3]"):
            assert [c["id"] for c in known_categories([name], 2)] == [3, 7]
    finally:
        DatasetCatalog.remove("categories[v2]")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_missing_or_broken_file_leaves_numbers(json_set: Path, content: str | None) -> None:
    json_set.unlink() if content is None else json_set.write_text(content)
    assert [c["name"] for c in known_categories(["categories_custom"], 2)] == ["class 0", "class 1"]


def test_built_in_sets_are_known_without_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    coco = known_categories(["coco_2017_val"], 80)
    assert coco[0] == {"id": 1, "name": "person"} and coco[-1] == {"id": 90, "name": "toothbrush"}
    assert [c["name"] for c in known_categories(["voc_2007_test"], 20)] == list(VOC_CLASSES)
    assert known_categories(["shapes_val"], 6)[0] == {"id": 1, "name": "circle"}
    assert not list(tmp_path.iterdir())


def test_sets_of_another_size_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(known_categories(["voc_2007_test", "shapes_val"], 6)) == 6
    assert "'voc_2007_test' has 20 classes but the model has 6" in caplog.text


def test_coco_categories_are_those_of_real_files(shared_data: Path) -> None:
    content = json.loads((shared_data / "coco128/coco/annotations/instances_val2017.json").read_text())
    assert {c["id"]: c["name"] for c in content["categories"]} == COCO_CATEGORIES
