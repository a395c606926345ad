"""Tests of inputs that may come from strangers: paths, names, numbers and masks that would do harm later."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sn2fpn.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_test_loader,
    build_train_loader,
    class_names,
    get_dataset_dicts,
    known_categories,
    load_coco_json,
    load_voc_instances,
    register_coco_instances,
    register_custom,
    register_pascal_voc,
)
from sn2fpn.data.files import check_files_exist, path_inside
from sn2fpn.data.formats.voc_files import find_voc_classes
from sn2fpn.data.masks import check_segmentation
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import polygons_to_bitmask

CLASSES = ["cat", "dog"]


def load(coco_set: Any, **options: Any) -> list[dict[str, Any]]:
    return load_coco_json(coco_set.write().json, coco_set.images, **options)


# Paths


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg", "a\nb.jpg", "a\0b.jpg", "\ud800.jpg", "x" * 300]
)
def test_names_that_leave_their_folder_or_name_no_file(coco_set: Any, name: str) -> None:
    coco_set.content["images"][1]["file_name"] = name
    with pytest.raises(UserError, match=r"instances\.json: image 2: the name .*(outside|control|UTF-8|too long)"):
        load(coco_set)


def test_names_that_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "images"
    assert path_inside(root, "a/b.jpg") == str(root / "a" / "b.jpg")
    assert path_inside(root, str(root / "b.jpg")) == str(root / "b.jpg")
    assert path_inside(root, "a/../b.jpg") == str(root / "b.jpg")  # a link `a` cannot lead this path elsewhere
    assert path_inside(Path(), "..b.jpg") == "..b.jpg"
    assert path_inside(Path("relative/root"), str(Path.cwd() / "relative/root/b.jpg")).endswith("root/b.jpg")
    with pytest.raises(ValueError, match="outside"):
        path_inside(root, "../images2/b.jpg")


def test_links_are_followed(coco_set: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    coco_set.images.rename(elsewhere)
    coco_set.images.symlink_to(elsewhere)
    (elsewhere / "link.jpg").symlink_to(elsewhere / "1.jpg")
    coco_set.content["images"][0]["file_name"] = "link.jpg"
    assert load(coco_set)[0]["file_name"] == str(coco_set.images / "link.jpg")


@pytest.mark.parametrize("target", ["moved/1.jpg", "1.jpg"])
def test_links_to_nothing_are_missing_files(coco_set: Any, target: str) -> None:
    """They are found before a training; a link to itself is one of them."""
    (coco_set.images / "1.jpg").unlink()
    (coco_set.images / "1.jpg").symlink_to(target)
    records = load_coco_json(coco_set.json, coco_set.images)
    reason = rf"1\.jpg: image file does not exist \(1 of 3 images is missing\); it is a link to {target}, which"
    with pytest.raises(UserError, match=reason):
        check_files_exist(records)
    (coco_set.images / "moved").mkdir()
    (coco_set.images / "moved/1.jpg").touch()
    if target == "moved/1.jpg":
        check_files_exist(records)


@pytest.mark.usefixtures("registered")
def test_a_set_may_allow_what_is_outside(coco_set: Any, voc_root: Path, tmp_path: Path) -> None:
    outside = str(tmp_path / "images" / "1.jpg")
    coco_set.content["images"][0]["file_name"] = outside
    coco_set.write()
    root = tmp_path / "root"
    root.mkdir()
    coco = {"FORMAT": "coco", "JSON": str(coco_set.json), "IMAGES": str(root)}
    register_custom([{**coco, "NAME": "inside"}, {**coco, "NAME": "outside", "ALLOW_OUTSIDE": True}])
    with pytest.raises(UserError, match=r"image 1: .* set ALLOW_OUTSIDE"):
        DatasetCatalog.get("inside")
    assert DatasetCatalog.get("outside")[0]["file_name"] == outside
    register_coco_instances("in_python", {}, coco_set.json, root, allow_outside=True)
    assert DatasetCatalog.get("in_python")[0]["file_name"] == outside
    with pytest.raises(UserError, match="ALLOW_OUTSIDE: expected true or false, found 'yes'"):
        register_custom([{**coco, "NAME": "other", "ALLOW_OUTSIDE": "yes"}])

    for folder in ("Annotations", "JPEGImages"):
        (voc_root / folder / "sub").mkdir()
        for file in list((voc_root / folder).glob("a.*")):
            file.rename(voc_root / folder / "sub" / file.name)
    (voc_root / "ImageSets/Main/all.txt").write_text("sub/a\nb\n../../other/Annotations/c\n")
    with pytest.raises(UserError, match=r"other/Annotations/c\.xml: the name .* leads outside"):
        load_voc_instances(voc_root, "all", CLASSES)
    register_pascal_voc("voc_outside", voc_root, "all", 2012, CLASSES, allow_outside=True)
    with pytest.raises(UserError, match="annotation file does not exist"):
        DatasetCatalog.get("voc_outside")
    (voc_root / "ImageSets/Main/all.txt").write_text("sub/a\nb\n")
    records = load_voc_instances(voc_root, "all", CLASSES)
    assert [r["file_name"] for r in records] == [str(voc_root / "JPEGImages" / f) for f in ("sub/a.jpg", "b.jpg")]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", ".", "", "a\nb", "a\x1bb", " a", "x" * 300])
def test_names_of_sets_stay_in_their_output_folder(coco_set: Any, name: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be the name of a data set"):
        register_coco_instances(name, {}, coco_set.json, coco_set.images)
    entry = {"NAME": name, "FORMAT": "coco", "JSON": str(coco_set.json), "IMAGES": str(coco_set.images)}
    with pytest.raises(UserError, match=r"^DATASETS.CUSTOM( \([ -~…]+\)|\[0\]): NAME: "):
        register_custom([entry])


# Names of classes


@pytest.mark.usefixtures("registered")
def test_class_names_are_cleaned_at_the_reader(coco_set: Any, voc_root: Path) -> None:
    coco_set.content["categories"] = [{"id": 3, "name": " big\n\x00cat "}, {"id": 7, "name": "d\ud800og\u2028x"}]
    register_coco_instances("cleaned", {}, coco_set.write().json, coco_set.images)
    assert class_names("cleaned") == ["big cat", "d og x"]
    xml = voc_root / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("<name>cat</name>", "<name>\n  sea\n cat </name>"))
    assert find_voc_classes(voc_root) == ["cat", "dog", "sea cat"]
    assert load_voc_instances(voc_root, "all", ["sea cat"])[0]["annotations"][0]["category_id"] == 0
    DatasetCatalog.register("by_hand", lambda: [])
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN: the class names of data set 'by_hand' are not known"):
        class_names("by_hand", "DATASETS.TRAIN")
    MetadataCatalog.get("by_hand").set(thing_classes=["one\ntwo"])
    assert class_names("by_hand") == ["one two"]


def test_names_that_are_equal_once_cleaned_are_refused(coco_set: Any) -> None:
    coco_set.content["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": "cat\n"}]
    with pytest.raises(UserError, match="category name 'cat' is given to the ids 3 and 7"):
        load(coco_set)
    coco_set.content["categories"][1]["name"] = "\n\x00"
    with pytest.raises(UserError, match=r"categories\[1\] needs"):
        load(coco_set)


# Numbers and text


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), 1e308, "5", None, [1], True])
def test_absurd_numbers_in_boxes(coco_set: Any, caplog: Any, value: Any) -> None:
    coco_set.content["annotations"][0]["bbox"][2] = value
    first = load(coco_set)[0]["annotations"]
    assert "annotation 1 " in caplog.text
    assert len(first) == (2 if value == 1e308 else 1) and all(np.isfinite(a["bbox"]).all() for a in first)


def test_lists_that_are_no_utf_8(voc_root: Path) -> None:
    (voc_root / "ImageSets/Main/all.txt").write_bytes("a\nb\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"all\.txt: not readable as UTF-8"):
        load_voc_instances(voc_root, "all", CLASSES)


# Masks

FAR = [1.0, 2.0, 1e9, 3.0, 1e9, 1e9, 5.0, 40.0]


def test_far_polygons_are_clipped(coco_set: Any, caplog: Any) -> None:
    """A polygon that leaves the image keeps its part inside; in one process, such a polygon was the end of Python."""
    coco_set.content["annotations"][0]["segmentation"] = [FAR]
    coco_set.content["annotations"][1]["segmentation"] = [[-1e300, -1e300, 1e308, -5.0, 4.0, 1e308]]
    coco_set.content["annotations"][2]["segmentation"] = [[200.0, 200.0, 300.0, 200.0, 300.0, 300.0]]
    coco_set.content["annotations"][3]["segmentation"] = [[-1.0, 0.0, 60.9, 0.0, 60.9, 80.5]]  # by a rounding error
    first, second = load(coco_set)[0]["annotations"]
    third, fourth = load(coco_set)[1]["annotations"]
    points = np.reshape(first["segmentation"][0], (-1, 2))
    assert (points >= 0).all() and (points <= (80, 60)).all() and [1.0, 2.0] in points.tolist()
    assert polygons_to_bitmask([points.reshape(-1)], 60, 80).sum() > 1000
    assert "segmentation" not in third and fourth["segmentation"] == [[-1.0, 0.0, 60.9, 0.0, 60.9, 80.5]]
    assert (np.reshape(second["segmentation"][0], (-1, 2)) <= (80, 60)).all()
    assert "annotation 1 " in caplog.text and "2 with a clipped mask" in caplog.text


def test_clipping_does_not_change_what_is_inside() -> None:
    polygon = [-30.0, 10.0, 120.0, -20.0, 100.0, 90.0, 20.0, 30.0]
    (clipped,) = check_segmentation([polygon], 60, 80)
    drawn, whole = (polygons_to_bitmask([np.array(p)], 60, 80) for p in (clipped, polygon))
    assert (drawn != whole).sum() <= 0.02 * whole.sum()  # pycocotools rounds corners to a fifth of a pixel


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [60, 80], "counts": [10**400]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [60, 80], "counts": [True, 4799]},
        {"size": [60, 80], "counts": "é" * 40},
        {"size": [60, 80], "counts": "oooooooooo0"},
        [[1.0, 2.0, 10**400, 4.0, 5.0, 6.0]],
        [[1.0, 2.0, float("nan"), 4.0, 5.0, 6.0]],
    ],
)
def test_masks_that_would_crash_are_dropped(coco_set: Any, caplog: Any, segmentation: Any) -> None:
    coco_set.content["annotations"][1]["segmentation"] = segmentation
    second = load(coco_set)[0]["annotations"][1]
    assert "segmentation" not in second and "1 without their malformed mask" in caplog.text


def test_masks_of_absurd_images_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot have masks"):
        check_segmentation([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], 10**9, 10**9)


def test_drawing_far_polygons_survives() -> None:
    """The last guard, for polygons that no reader has checked, runs in a process of its own."""
    code = (
        "import numpy as np; from sn2fpn.structures import polygons_to_bitmask as f;"
        "print(f([np.array([0, 0, 1e12, 0, 1e12, 1e12, 0, 1e12])], 8, 8).sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "64"), done.stderr
    with pytest.raises(ValueError, match="finite"):
        polygons_to_bitmask([np.array([0, 0, np.nan, 0, 5, 5])], 8, 8)


# Data without annotations


@pytest.mark.usefixtures("registered")
def test_data_without_annotations_are_for_prediction(coco_set: Any, shapes_cfg: Any) -> None:
    del coco_set.content["annotations"]
    register_coco_instances("unlabelled", {}, coco_set.write().json, coco_set.images)
    MetadataCatalog.get("by_function").set(thing_classes=["cat", "dog"])
    records = [{"file_name": str(coco_set.images / "1.jpg"), "height": 60, "width": 80, "image_id": 5}]
    DatasetCatalog.register("by_function", lambda: records)
    for name, count in (("unlabelled", 3), ("by_function", 1)):
        assert len(get_dataset_dicts(name)) == count and "annotations" not in get_dataset_dicts(name)[0]
        cfg = shapes_cfg("DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,), "MODEL.ROI_HEADS.NUM_CLASSES", 2)
        (x,) = next(iter(build_test_loader(cfg, name)))
        assert x["image"].shape[0] == 3 and "instances" not in x
        words = rf"{count} of {count} images? (has|have) no 'annotations'.*only be predicted on"
        for overrides in ([], ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", False], ["MODEL.MASK_ON", True]):
            changed = cfg.clone()
            changed.merge_from_list(overrides)
            with pytest.raises(UserError, match=words):
                build_train_loader(changed)
        with pytest.raises(UserError, match=words):
            build_test_loader(cfg, name, with_targets=True)


def test_built_in_sets_have_detectron2s_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name, file in {
        "coco_2014_train": "instances_train2014",
        "coco_2014_val": "instances_val2014",
        "coco_2014_minival": "instances_minival2014",
        "coco_2014_valminusminival": "instances_valminusminival2014",
        "coco_2017_val_100": "instances_val2017_100",
        "coco_2017_test": "image_info_test2017",
        "coco_2017_test-dev": "image_info_test-dev2017",
    }.items():
        with pytest.raises(UserError, match=rf"{tmp_path}/coco/annotations/{file}\.json"):
            DatasetCatalog.get(name)
        assert len(known_categories([name], 80)) == 80


# What training says


@pytest.mark.usefixtures("registered")
def test_training_says_in_one_line_what_is_left_out(coco_set: Any, coco_name: str, caplog: Any) -> None:
    a = coco_set.content["annotations"]
    a[0]["iscrowd"] = a[1]["iscrowd"] = 1
    a[2]["bbox"][2] = 0
    a[3]["category_id"] = 99
    coco_set.write()
    with caplog.at_level(logging.INFO):
        get_dataset_dicts(coco_name, filter_empty=True, mask_format=None)
        get_dataset_dicts(coco_name, filter_empty=True, mask_format=None)
        get_dataset_dicts(f"{coco_name}[2:]", filter_empty=True, mask_format=None)  # nothing is left out of this part
    lines = [r.getMessage() for r in caplog.records if "not trained on" in r.getMessage()]
    kinds = "2 crowd regions, 1 without area, 1 of an unknown category"
    assert lines == [f"data set 'tiny_coco': 4 of 6 objects are not trained on ({kinds})"] * 2
    sizes = [r.getMessage() for r in caplog.records if "3 images, 4 boxes" in r.getMessage()]
    assert len(sizes) == 1  # the reader says it once
    (warning,) = [r.getMessage() for r in caplog.records if "problems in the" in r.getMessage()]
    assert "2 of 6 objects are left out (1 without area, 1 of an unknown category)" in warning.splitlines()[0]


def test_missing_built_in_data_are_not_mistaken_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "shapes/annotations").mkdir(parents=True)
    (tmp_path / "shapes/annotations/instances_val.json").write_text("{}")
    with pytest.raises(UserError, match=r"instances_val2017\.json: .* does not exist \(.*\$DETECTRON2_DATASETS") as e:
        DatasetCatalog.get("coco_2017_val")
    assert "did you mean" not in str(e.value) and "coco/annotations/*.json" in str(e.value)
