"""Tests that files are read once, and again when they change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sn2fpn.data import DatasetCatalog, MetadataCatalog, class_names, register_custom
from sn2fpn.data.check import check_dataset
from sn2fpn.data.formats import coco
from sn2fpn.data.problems import count_left_out
from sn2fpn.data.readings import _KEPT, _readings, read_once


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the annotation files that were parsed."""
    sizes: list[int] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: sizes.append(len(text)) or loads(text))
    return sizes


def test_a_file_is_read_again_when_it_has_changed(coco_set: Any, coco_name: str, parsed: list[int]) -> None:
    first = DatasetCatalog.get(coco_name)
    assert DatasetCatalog.get(coco_name) == first and class_names(coco_name) == ["cat", "dog"] and len(parsed) == 1
    coco_set.content["annotations"][0]["bbox"][0] = 6.0  # as many bytes as before
    stamp = coco_set.json.stat()
    coco_set.write()
    assert coco_set.json.stat().st_size == stamp.st_size
    assert DatasetCatalog.get(coco_name)[0]["annotations"][0]["bbox"][0] == 6.0 and len(parsed) == 2
    coco_set.content["categories"][0]["name"] = "wolf"
    coco_set.json.with_suffix(".new").write_text(json.dumps(coco_set.content))
    os.utime(coco_set.json.with_suffix(".new"), ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    coco_set.json.with_suffix(".new").replace(coco_set.json)
    DatasetCatalog.get(coco_name)
    assert class_names(coco_name) == ["cat", "wolf"] and len(parsed) == 3
    DatasetCatalog.remove(coco_name)
    coco.register_coco_instances(coco_name, {}, coco_set.json, coco_set.images)
    assert class_names(coco_name) == ["cat", "wolf"] and len(parsed) == 3  # metadata come with the reading


def test_sizes_that_were_read_from_images_follow_the_images(coco_set: Any, coco_name: str, parsed: list[int]) -> None:
    del coco_set.content["images"][0]["height"]
    coco_set.write()
    assert [DatasetCatalog.get(coco_name)[0]["height"] for _ in range(2)] == [60, 60] and len(parsed) == 1
    Image.new("RGB", (80, 70)).save(coco_set.images / "1.jpg")
    assert DatasetCatalog.get(coco_name)[0]["height"] == 70 and len(parsed) == 2


def test_a_known_reading_still_tells_what_was_left_out(coco_set: Any, coco_name: str, parsed: list[int]) -> None:
    coco_set.content["annotations"][1]["bbox"][2] = 0
    coco_set.write()
    for _ in range(2):
        with count_left_out() as left_out:
            DatasetCatalog.read(coco_name)
        assert left_out == {"without area": 1}
    assert len(parsed) == 1
    for _ in range(2):  # the check reads for itself, and finds every problem again
        assert any("has no area" in problem.reason for problem in check_dataset(coco_name)[1])
    assert len(parsed) == 3


def test_voc_folders_are_read_again_when_a_file_changes_or_comes(voc_root: Path, registered: None) -> None:
    register_custom([{"NAME": "own_voc", "FORMAT": "voc", "ROOT": str(voc_root), "SPLIT": "all"}])
    first = DatasetCatalog.read("own_voc")
    assert DatasetCatalog.read("own_voc") is first and class_names("own_voc") == ["cat", "dog"]
    file = voc_root / "Annotations" / "b.xml"
    file.write_text(file.read_text().replace("cat", "cow"))
    second = DatasetCatalog.read("own_voc")
    assert second is not first and class_names("own_voc") == ["cat", "cow", "dog"]
    (voc_root / "JPEGImages" / "c.jpg").rename(voc_root / "JPEGImages" / "c.png")
    assert DatasetCatalog.get("own_voc")[2]["file_name"].endswith("c.png")
    assert MetadataCatalog.get("own_voc").thing_classes == ["cat", "cow", "dog"]


def test_only_the_last_readings_are_kept(registered: None) -> None:
    def read(number: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return [{"image_id": number}], {"number": number}

    for number in range(_KEPT + 3):
        assert read_once("numbers", read, number)[0] == {"image_id": number}
    assert len(_readings) == _KEPT and MetadataCatalog.get("numbers").number == _KEPT + 2
    MetadataCatalog.remove("numbers")
