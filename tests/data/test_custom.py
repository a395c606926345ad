"""Tests of data sets from the configuration, and of the agreement of classes between data sets and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.data import (
    DatasetCatalog,
    MetadataCatalog,
    check_classes,
    check_num_classes,
    class_histogram,
    get_dataset_dicts,
    register_custom,
    register_pascal_voc,
)
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.evaluation import PascalVOCEvaluator, build_evaluator

pytestmark = pytest.mark.usefixtures("registered")


def coco_entry(coco_set: Any, **changes: Any) -> dict[str, Any]:
    return {"NAME": "mine", "FORMAT": "coco", "JSON": str(coco_set.json), "IMAGES": str(coco_set.images), **changes}


def test_coco_and_voc_entries(coco_set: Any, voc_root: Path) -> None:
    cfg = get_cfg()
    cfg.DATASETS.CUSTOM = [
        coco_entry(coco_set),
        {"NAME": "mine_voc", "FORMAT": "voc", "ROOT": str(voc_root), "SPLIT": "all", "YEAR": 2007},
        {"NAME": "mine_dogs", "FORMAT": "voc", "ROOT": str(voc_root), "SPLIT": "all", "CLASSES": ["dog"]},
    ]
    for _ in range(2):  # the second registration has no effect
        assert register_custom(cfg.DATASETS.CUSTOM) == ["mine", "mine_voc", "mine_dogs"]
    assert len(get_dataset_dicts(["mine", "mine_voc"])) == 6  # both data sets have the classes cat and dog
    assert MetadataCatalog.get("mine_voc").thing_classes == ["cat", "dog"]
    assert MetadataCatalog.get("mine_voc").get("year") == 2007
    assert sum(len(r["annotations"]) for r in get_dataset_dicts("mine_dogs")) == 3


def test_command_line_form(coco_set: Any) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.CUSTOM", repr([coco_entry(coco_set)])])
    assert register_custom(cfg.DATASETS.CUSTOM) == ["mine"]


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"FORMAT": "cocoo"}, r"^DATASETS\.CUSTOM \(mine\): .*FORMAT 'cocoo'.*did you mean 'coco'"),
        ({"IMAGE": "x"}, "unknown key 'IMAGE'.*did you mean 'IMAGES'"),
        ({"JSON": 3}, "JSON: expected text, found 3"),
        ({"NAME": ""}, r"^DATASETS\.CUSTOM\[0\]: NAME: expected text that is not empty, found ''$"),
        ({"NAME": "coco_2017_val"}, "'coco_2017_val' is taken"),
        ({"FORMAT": "voc"}, "unknown key 'JSON' for format 'voc'"),
    ],
)
def test_wrong_entries(coco_set: Any, changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        register_custom([coco_entry(coco_set, **changes)])


def test_missing_keys_and_other_content_under_the_same_name(coco_set: Any) -> None:
    with pytest.raises(UserError, match=r"CUSTOM \(mine\): expected ANNOTATIONS, the .*; found the keys NAME, FORMAT$"):
        register_custom([{"NAME": "mine", "FORMAT": "coco"}])
    nameless = r"CUSTOM\[1\]: expected NAME, by which DATASETS.TRAIN .*; found the keys ANNOTATIONS$"
    with pytest.raises(UserError, match=nameless):
        register_custom([coco_entry(coco_set), {"ANNOTATIONS": "data.yaml"}])
    with pytest.raises(UserError, match=r"CUSTOM\[0\]: expected a mapping with NAME"):
        register_custom(["mine"])
    with pytest.raises(UserError, match="CLASSES: expected different names"):
        register_custom([{"NAME": "v", "FORMAT": "voc", "ROOT": "r", "SPLIT": "s", "CLASSES": ["a", "a"]}])
    with pytest.raises(UserError, match=r"\(v\): CLASSES: class 1 is False, expected a text; put it in quotes"):
        register_custom([{"NAME": "v", "FORMAT": "voc", "ROOT": "r", "SPLIT": "s", "CLASSES": ["yes", False]}])
    register_custom([{"NAME": "numbers", "FORMAT": "voc", "ROOT": "r", "SPLIT": "s", "CLASSES": [0, 1, "b"]}])
    assert MetadataCatalog.get("numbers").thing_classes == ["0", "1", "b"]
    register_custom([coco_entry(coco_set)])
    with pytest.raises(UserError, match="'mine' is taken"):
        register_custom([coco_entry(coco_set, IMAGES="elsewhere")])


def test_the_example_of_the_page(yolo_set: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    lines = [line.removeprefix("    ") for line in page.splitlines()]
    start = lines.index("_BASE_: configs/quick/faster_rcnn_R18_sni_shapes.yaml")
    example = lines[start : lines.index("OUTPUT_DIR: output/birds") + 1]
    assert len(example) <= 10
    text = "\n".join(example).replace("configs/", f"{Path(__file__).parents[2]}/configs/")
    (tmp_path / "birds.yaml").write_text(text.replace("data/birds", str(yolo_set)).replace("CLASSES: 12", "CLASSES: 2"))
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "birds.yaml"))
    assert register_custom(cfg.DATASETS.CUSTOM) == ["birds_train", "birds_val"]
    assert [len(get_dataset_dicts(names)) for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)] == [1, 1]
    check_classes(cfg, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])


@pytest.fixture
def yolo_set(tmp_path: Path) -> Path:
    root = tmp_path / "birds"
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        Image.new("RGB", (80, 60)).save(root / "images" / split / "a.jpg")
        (root / "labels" / split / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [wren, kite]\n")
    return root


def test_missing_files_are_named_when_used() -> None:
    register_custom([{"NAME": "mine", "FORMAT": "coco", "JSON": "no/such.json", "IMAGES": "no"}])
    with pytest.raises(UserError, match=r"no/such\.json"):
        get_dataset_dicts("mine")


def test_a_folder_that_appears_later_is_evaluated_as_what_it_is(voc_root: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    register_custom({"mine": {"ANNOTATIONS": str(later), "SPLIT": "all", "YEAR": 2007, "CLASSES": ["cat", "dog"]}})
    voc_root.rename(later)
    assert isinstance(build_evaluator(get_cfg(), "mine[:2]"), PascalVOCEvaluator)
    assert MetadataCatalog.get("mine").year == 2007 and MetadataCatalog.get("mine").dirname == str(later)


def test_classes_must_agree(coco_name: str, voc_root: Path) -> None:
    cfg = get_cfg()
    with pytest.raises(UserError, match=r"NUM_CLASSES: expected 2, .*data set 'tiny_coco' \(cat, dog\), found 80"):
        check_classes(cfg, [coco_name])
    with pytest.raises(ArgumentError, match=r"^num_classes: expected 2, .*found 3"):
        check_num_classes(3, coco_name)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    assert check_classes(cfg, coco_name) == ["cat", "dog"]
    register_pascal_voc("other", voc_root, "all", 2012, ["dog", "cat"])
    with pytest.raises(UserError, match=r"'tiny_coco' and 'other' have different classes.*class 0 is 'cat' and 'dog'"):
        check_classes(cfg, [coco_name, "other"])
    with pytest.raises(UserError, match="different classes"):
        get_dataset_dicts([coco_name, "other"])


def test_histogram(coco_set: Any, coco_name: str) -> None:
    coco_set.content["annotations"][0]["iscrowd"] = 1
    coco_set.write()
    table = class_histogram(get_dataset_dicts(coco_name), ["cat", "dog"])
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["cat"] == ["3", "3"] and rows["dog"] == ["2", "2"]
    assert table.endswith("3 images, 5 boxes and 1 crowd region, 2 classes")


def test_missing_built_in_set_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("coco_2017_train", "voc_2007_test"):
        with pytest.raises(UserError, match=rf"{tmp_path}.*DETECTRON2_DATASETS"):
            DatasetCatalog.get(name)
