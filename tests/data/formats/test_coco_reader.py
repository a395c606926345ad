"""Tests of the COCO reader: its records, its warnings and its errors."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as mask_api

from sn2fpn.data import MetadataCatalog, build_train_loader, get_dataset_dicts
from sn2fpn.data.formats import FORMATS, Source
from sn2fpn.data.formats.coco import load_coco_json
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import BoxMode


def load(coco_set: Any, name: str | None = None) -> list[dict[str, Any]]:
    return load_coco_json(coco_set.write().json, coco_set.images, name)


def boxes(records: list[dict[str, Any]]) -> int:
    return sum(len(r["annotations"]) for r in records)


def test_healthy_file(coco_set: Any) -> None:
    coco_set.content["images"].reverse()
    records = load(coco_set, "healthy")
    assert [r["image_id"] for r in records] == [1, 2, 3]  # they are sorted
    assert records[0]["file_name"] == str(coco_set.images / "1.jpg")
    assert (records[0]["height"], records[0]["width"]) == (60, 80)
    assert records[0]["annotations"][0] == {
        "iscrowd": 0,
        "bbox": [5.0, 6.0, 20.0, 15.5],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "area": 310.0,
    }
    meta = MetadataCatalog.get("healthy")
    assert meta.thing_classes == ["cat", "dog"]  # in the order of the ids 3 and 7
    assert meta.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    MetadataCatalog.remove("healthy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [10, 10, -4, 5]}, "no area"),
        ({"bbox": [10, 10, 0, 5]}, "no area"),
        ({"bbox": [10, None, 4, 5]}, "four finite numbers"),
        ({"bbox": [10, float("nan"), 4, 5]}, "four finite numbers"),
        ({"bbox": [10, 4, 5]}, "four finite numbers"),
        ({"bbox": []}, "four finite numbers"),
        ({"bbox": [100, 100, 4, 5]}, "outside the 80x60 image"),
        ({"category_id": 91}, "category 91"),
        ({"category_id": True}, "category True"),
        ({"image_id": 999}, "image 999"),
    ],
)
def test_broken_annotation_is_skipped_by_name(coco_set: Any, caplog: Any, change: dict, message: str) -> None:
    coco_set.content["annotations"][1].update(change)
    records = load(coco_set)
    assert len(records) == 3 and boxes(records) == 5
    assert "annotation 2" in caplog.text and message in caplog.text and "instances.json" in caplog.text


def test_ignored_objects_are_difficult_ones(coco_set: Any, caplog: Any) -> None:
    """Files that were made of VOC's have the key `ignore`, which Detectron2 refuses and COCO's metric does not read."""
    annotations = coco_set.content["annotations"]
    for annotation, ignore in zip(annotations, (1, 0, None)):
        annotation["ignore"] = ignore
    found = [a.get("difficult", 0) for r in load(coco_set) for a in r["annotations"]]
    assert found == [1] + [0] * (len(annotations) - 1)
    assert "1 note in the annotations" in caplog.text
    assert "1 object has 'ignore', which is read as VOC's 'difficult'" in caplog.text


@pytest.mark.parametrize("inside", ["train", "images/train", "images"])
@pytest.mark.parametrize("folder", ["", "annotations"])
@pytest.mark.parametrize("relative", [True, False])
def test_images_are_found_in_all_usual_folders(
    inside: str, folder: str, relative: bool, coco_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "birds"
    (root / folder).mkdir(parents=True)
    shutil.copytree(coco_set.images, root / inside)
    shutil.copy(coco_set.json, root / folder / "instances_train.json")
    monkeypatch.chdir(root / folder)
    file = Path("instances_train.json") if relative else root / folder / "instances_train.json"
    records, _ = FORMATS["coco"].read(Source("birds", file))
    assert len(records) == 3


def test_box_across_the_border_is_clipped_unless_by_a_rounding_error(coco_set: Any, caplog: Any) -> None:
    coco_set.content["annotations"][0]["bbox"] = [70, 50, 40, 40]
    coco_set.content["annotations"][1]["bbox"] = [70, 50, 10.4, 10]
    first, second = load(coco_set)[0]["annotations"]
    assert first["bbox"] == [70, 50, 10, 10] and second["bbox"] == [70, 50, 10.4, 10]
    assert "annotation 1 " in caplog.text and "clipped" in caplog.text and "annotation 2 " not in caplog.text


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "x"]],
        "text",
        {"size": [60, 80], "counts": [1000, 200, 5]},
        {"size": [60, 80], "counts": [5000, -200]},
        {"size": [80, 60], "counts": [4800]},
        {"size": [60, 80], "counts": "~~~~"},
        {"size": [60, 80], "counts": "0"},
        {"size": [60, 80]},
    ],
)
def test_malformed_mask_is_dropped_and_its_box_kept(coco_set: Any, caplog: Any, segmentation: Any) -> None:
    coco_set.content["annotations"][1]["segmentation"] = segmentation
    records = load(coco_set)
    assert boxes(records) == 6 and "segmentation" not in records[0]["annotations"][1]
    assert "annotation 2" in caplog.text


def test_sound_masks_are_kept(coco_set: Any, caplog: Any) -> None:
    counts = [100, 50, 4650]
    compressed = mask_api.frPyObjects({"size": [60, 80], "counts": counts}, 60, 80)
    a = coco_set.content["annotations"]
    a[0]["segmentation"] = {"size": [60, 80], "counts": counts}
    a[1]["segmentation"] = {"size": [60, 80], "counts": compressed["counts"].decode()}
    a[2]["segmentation"] = [[1, 1, 20, 1, 20, 30], [1, 2, 3, 4]]
    records = load(coco_set)
    first, second = records[0]["annotations"]
    assert mask_api.area(first["segmentation"]) == mask_api.area(second["segmentation"]) == 50
    assert records[1]["annotations"][0]["segmentation"] == [[1, 1, 20, 1, 20, 30]]
    assert not caplog.records


def test_long_run_lengths_survive_the_check(coco_set: Any) -> None:
    """The compressed string stores differences with signs, and many different runs need both."""
    counts = [i * 37 % 91 + 1 for i in range(60)]
    counts.append(4800 - sum(counts))
    rle = mask_api.frPyObjects({"size": [60, 80], "counts": counts}, 60, 80)
    coco_set.content["annotations"][0]["segmentation"] = {"size": [60, 80], "counts": rle["counts"].decode()}
    assert "segmentation" in load(coco_set)[0]["annotations"][0]


def test_repeated_annotation_id_is_named_and_both_boxes_kept(coco_set: Any, caplog: Any) -> None:
    coco_set.content["annotations"][3]["id"] = 1
    assert boxes(load(coco_set)) == 6
    assert "annotation 1: the id occurs more than once" in caplog.text


def test_many_problems_are_one_short_warning(coco_set: Any, caplog: Any) -> None:
    bad = [{**coco_set.content["annotations"][0], "id": 100 + i, "bbox": [0, 0, 0, 0]} for i in range(1000)]
    coco_set.content["annotations"] += bad
    assert boxes(load(coco_set)) == 6
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "1,000 problems" in record.getMessage() and len(record.getMessage().splitlines()) < 10


def test_refused_files(coco_set: Any) -> None:
    def refuse(pattern: str) -> None:
        with pytest.raises(UserError, match=pattern):
            load_coco_json(coco_set.json, coco_set.images)

    whole = coco_set.json.read_text()
    coco_set.json.write_text(whole[: whole.index("annotations") + 80])
    refuse(r"instances\.json.*line 1, column \d+")
    coco_set.json.write_text("[]")
    refuse("expected a COCO file")
    coco_set.json.write_text('{"images": [], "annotations": {}, "categories": []}')
    refuse("list 'annotations'")
    coco_set.json.write_text('{"images": ' + "9" * 5000 + "}")
    refuse(r"instances\.json: not readable as JSON: .*digits")
    coco_set.json.write_bytes(b"\xff\xfe\x00")
    refuse(r"instances\.json")
    coco_set.json.write_text("[" * 100_000)
    refuse(r"instances\.json")
    coco_set.json.rename(coco_set.json.with_name("instance.json"))
    refuse(r"does not exist; did you mean '.*instance\.json'")


@pytest.mark.parametrize(
    ("part", "index", "change", "pattern"),
    [
        ("images", 2, {"id": 2}, r"image id 2.*2\.jpg.*3\.jpg"),
        ("images", 1, {"id": 1.5}, "images.1. needs an 'id', which .* 64 bits or a text, .*1.5"),
        ("images", 1, {"id": "two"}, "the id 'two', but the first id is 1"),
        ("images", 1, {"width": 10**6, "height": 10**6}, "image 2 has 1000000x1000000 pixels"),
        ("images", 1, {"file_name": None}, "file_name"),
        ("categories", 1, {"id": 7}, "category id 7.*'dog'.*'cat'"),
        ("categories", 1, {"name": None}, r"categories\[1\]"),
        ("categories", 1, {"id": 2**64}, r"categories\[1\] needs an 'id', which is a whole number of at most 64 bits"),
    ],
)
def test_ambiguous_files_are_refused(coco_set: Any, part: str, index: int, change: dict, pattern: str) -> None:
    coco_set.content[part][index].update(change)
    with pytest.raises(UserError, match=pattern):
        load(coco_set)


def test_size_comes_from_the_picture_where_the_file_is_silent(coco_set: Any) -> None:
    for image in coco_set.content["images"]:
        del image["height"], image["width"]
    assert [(r["height"], r["width"]) for r in load(coco_set)] == [(60, 80), (80, 60), (64, 64)]


def test_nothing_usable_is_an_error(coco_set: Any) -> None:
    for annotation in coco_set.content["annotations"]:
        annotation["category_id"] = 50
    with pytest.raises(UserError, match="none of its 6 annotations"):
        load(coco_set)


def test_crowds_are_kept_and_images_of_crowds_only_filtered(
    coco_set: Any, coco_name: str, shapes_cfg: Callable
) -> None:
    for i in (0, 1, 2):  # image 1 has only crowd regions, image 2 has a crowd region and a box
        coco_set.content["annotations"][i]["iscrowd"] = 1
    coco_set.content["annotations"] = coco_set.content["annotations"][:4]  # image 3 has no annotation
    coco_set.write()
    everything = get_dataset_dicts(coco_name)
    assert [sum(a["iscrowd"] for a in r["annotations"]) for r in everything] == [2, 1, 0]
    assert [r["image_id"] for r in get_dataset_dicts([coco_name], filter_empty=True)] == [2]
    coco_set.content["annotations"] = []
    coco_set.write()
    assert len(get_dataset_dicts(coco_name)) == 3
    with pytest.raises(ArgumentError, match=r"^filter_empty: none of the 3 images of data set tiny_coco has a box"):
        get_dataset_dicts(coco_name, filter_empty=True)
    with pytest.raises(ArgumentError, match=r"^DATALOADER\.FILTER_EMPTY_ANNOTATIONS: none"):
        build_train_loader(shapes_cfg("DATASETS.TRAIN", (coco_name,)))
