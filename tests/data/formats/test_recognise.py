"""Tests of `FORMAT: auto`: every format is recognised and gives the same records, and doubts are refused."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.data import DatasetCatalog, MetadataCatalog, class_histogram, dataset_fingerprint, register_custom
from sn2fpn.data.check import main as check
from sn2fpn.data.convert import main as convert
from sn2fpn.errors import UserError
from sn2fpn.structures import BoxMode

BOXES = {"dog": (8.0, 6.0, 40.0, 30.0), "cat": (16.0, 12.0, 64.0, 54.0)}
Read = Callable[..., list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("fixture", "part", "title"),
    [
        ("yolo_root", "data.yaml", "YOLO"),
        ("yolo_root", "", "YOLO"),
        ("labelme_root", "", "LabelMe"),
        ("labelme_root", "b.json", "LabelMe"),
        ("cvat_file", "", "CVAT for images"),
        ("lvis_file", "", "LVIS"),
    ],
)
def test_all_formats_give_the_same_objects(
    fixture: str, part: str, title: str, request: Any, read: Read, boxes_of: Any, expected_boxes: Any, caplog: Any
) -> None:
    path = request.getfixturevalue(fixture) / part
    keys = {"SPLIT": "train"} if title == "YOLO" else {"CLASSES": ["dog", "cat"]} if title == "LabelMe" else {}
    with caplog.at_level(logging.INFO):
        records = read(path, **keys)
    assert f"is recognised as {title}" in caplog.text
    assert MetadataCatalog.get("own").thing_classes == ["dog", "cat"]
    assert [Path(r["file_name"]).name for r in records] == ["a.jpg", "b.jpg"]
    assert all(Path(r["file_name"]).is_file() and (r["height"], r["width"]) == (60, 80) for r in records)
    assert [boxes_of(r) for r in records] == [expected_boxes, expected_boxes]
    assert MetadataCatalog.get("own").evaluator_type == "coco"
    assert "2 images, 4 boxes, 2 classes" in class_histogram(records, ["dog", "cat"])
    expected = [
        {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": i} for i, box in enumerate(BOXES.values())
    ]
    plain = [
        {**record, "image_id": i, "annotations": [_in_corners(a) for a in record["annotations"]]}
        for i, record in enumerate(records)  # the ids of the images differ from format to format
    ]
    same = [{"image_id": i, "height": 60, "width": 80, "annotations": expected} for i in range(2)]
    assert dataset_fingerprint(plain) == dataset_fingerprint(same)


@pytest.mark.parametrize("fixture", ["yolo_root", "labelme_root", "cvat_file", "lvis_file", "voc_root"])
def test_hidden_files_change_nothing(fixture: str, request: Any, read: Read) -> None:
    """macOS writes a hidden file beside each file into archives and onto disks of other systems."""
    path = request.getfixturevalue(fixture)
    root = path if path.is_dir() else path.parent
    keys = {"yolo_root": {"SPLIT": "train"}, "voc_root": {"SPLIT": "all"}}.get(fixture, {})
    records = read(root, **keys)
    for file in [file for file in root.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    assert read(root, **keys) == records and records
    with pytest.raises(UserError) as wrong:
        read(root, SPLIT="tra")
    assert "._" not in str(wrong.value)


def _in_corners(annotation: dict[str, Any]) -> dict[str, Any]:
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return annotation | {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS}


def test_folders_of_coco_and_voc(coco_set: Any, voc_root: Path, read: Read, tmp_path: Path) -> None:
    assert len(read(coco_set.json)) == 3  # the images are found beside the file
    root = tmp_path / "set"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copytree(coco_set.images, root / "images" / split)
        shutil.copy(coco_set.json, root / "annotations" / f"instances_{split}.json")
    assert f"{root}/images/val/1.jpg" == read(root, SPLIT="val")[0]["file_name"]
    with pytest.raises(UserError, match=r"can be COCO \(.*train\.json\), COCO \(.*val\.json\); name one of the files"):
        read(root)
    for file in sorted((root / "annotations").iterdir()):  # the same beside the images, one file with another ending
        file.rename(root / file.name if "val" in file.name else root / f"{file.stem}.JSON")
    assert f"{root}/images/val/1.jpg" == read(root, SPLIT="val", IMAGES=f"{root}/images/val")[0]["file_name"]
    with pytest.raises(UserError, match=r"can be COCO \(.*train\.JSON\), COCO \(.*val\.json\); name one of the files"):
        read(root)
    with pytest.raises(UserError, match=r"own.*set: there is no part 'vla'; did you mean 'val'"):
        read(root, SPLIT="vla")
    assert len(read(voc_root)) == 3 and MetadataCatalog.get("own").evaluator_type == "pascal_voc"
    assert MetadataCatalog.get("own").split == "all"  # the only list
    (voc_root / "ImageSets/Main/all.txt").unlink()
    with pytest.raises(
        UserError, match=r"SPLIT: expected a list in .*ImageSets/Main; or set ANNOTATIONS to .*/Annotations"
    ):
        read(voc_root)
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in [*(voc_root / "Annotations").iterdir(), *(voc_root / "JPEGImages").iterdir()]:
        shutil.copy(file, plain)
    assert [r["file_name"] for r in read(plain)] == [str(plain / f"{i}.jpg") for i in "abc"]
    assert MetadataCatalog.get("own").thing_classes == ["cat", "dog"]
    (plain / "classes.txt").write_text("dog\ncat\n")
    assert read(plain) and MetadataCatalog.get("own").thing_classes == ["dog", "cat"]


def test_the_folder_of_coco_itself(coco_set: Any, read: Read, tmp_path: Path, capsys: Any) -> None:
    """Beside the objects, COCO's download has captions and the like of the same images."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copytree(coco_set.images, root / f"{split}2017")
        shutil.copy(coco_set.json, root / f"annotations/instances_{split}2017.json")
        shutil.copy(coco_set.json, root / f"annotations/person_keypoints_{split}2017.json")
        captions = {"images": coco_set.content["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}
        (root / f"annotations/captions_{split}2017.json").write_text(json.dumps(captions))
    assert len(read(root, SPLIT="val2017")) == 3
    assert convert([str(root), "--to", "coco", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "out/annotations").iterdir()) == ["train2017.json", "val2017.json"]
    assert len(list((tmp_path / "out/images").rglob("*.jpg"))) == 6


def test_a_folder_with_the_files_of_a_format(
    coco_set: Any, cvat_file: Path, lvis_file: Path, voc_root: Path, read: Read, tmp_path: Path, capsys: Any
) -> None:
    assert [r["image_id"] for r in read(cvat_file.parent, FORMAT="cvat", SPLIT="val")] == ["b.jpg"]
    assert len(read(lvis_file.parent, FORMAT="lvis")) == 2
    assert len(read(lvis_file.parent, FORMAT="coco", IMAGES=f"{lvis_file.parent}/val2017")) == 2
    (voc_root / "annotations").mkdir()  # COCO's folder of annotations in a VOC folder
    for split in ("train", "val"):
        shutil.copy(coco_set.json, voc_root / f"annotations/instances_{split}.json")
    with pytest.raises(UserError, match=r"Pascal VOC .*, COCO .*; set FORMAT to coco or voc"):
        read(voc_root)
    keys = {"FORMAT": "coco", "IMAGES": str(coco_set.images)}
    with pytest.raises(UserError, match=r"can be COCO \(.*_train\.json\), COCO .*; name one of the files"):
        read(voc_root, **keys)
    assert len(read(voc_root, **keys, SPLIT="val")) == 3
    assert MetadataCatalog.get("own").json_file == str(voc_root / "annotations/instances_val.json")
    with pytest.raises(UserError, match=r"train\.json is read as COCO, which has no SPLIT"):
        read(voc_root / "annotations/instances_train.json", **keys, SPLIT="val")
    with pytest.raises(UserError, match=r"VOCtest: expected a file in the format cvat, found 4 folders"):
        read(voc_root, FORMAT="cvat")
    to = tmp_path / "converted"
    arguments = [str(voc_root), "--to", "yolo", str(to), "--images", str(coco_set.images)]
    assert convert([*arguments, "--format", "coco", "--split", "val"]) == 0, capsys.readouterr().err
    assert len(list((to / "images/val").iterdir())) == 3


def test_several_formats_and_none(yolo_root: Path, voc_root: Path, read: Read, tmp_path: Path) -> None:
    shutil.copytree(voc_root, yolo_root, dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"own.* can be YOLO .*, Pascal VOC .*; set FORMAT to voc or yolo"):
        read(yolo_root)
    assert len(read(yolo_root, FORMAT="voc", SPLIT="all")) == 3
    with pytest.raises(UserError, match=r"CUSTOM \(own\): SPLIT: expected one of the parts of .* \(train, val\)"):
        read(yolo_root, FORMAT="yolo")
    with pytest.raises(UserError, match=r"yolo/images: the format is not recognised; .*found 2 folders"):
        read(yolo_root / "images")
    with pytest.raises(UserError, match="unknown FORMAT 'yollo'; did you mean 'yolo'"):
        read(yolo_root, FORMAT="yollo")
    with pytest.raises(UserError, match="unknown key 'CLASSES' for format 'yolo'"):
        read(yolo_root, FORMAT="yolo", CLASSES=["dog"])
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match=r"list\.json: the format is not recognised"):
        read(tmp_path / "list.json")


def test_several_files_of_cvat_and_many_of_labelme(
    cvat_file: Path, labelme_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(cvat_file, cvat_file.with_name("more.XML"))
    with pytest.raises(UserError, match=r"CVAT .*annotations\.xml\), CVAT .*more\.XML\); name one of the files"):
        read(cvat_file.parent)
    opened: list[Path] = []
    module = sys.modules["sn2fpn.data.formats.recognise"]  # the package has a function of this name
    peek = module._peek
    monkeypatch.setattr(module, "_peek", lambda path: opened.append(path) or peek(path))
    assert len(read(labelme_root)) == 2 and opened == [labelme_root / "a.json"]


def test_long_labelme_files(labelme_root: Path, read: Read) -> None:
    """The path of the image lies between long polygons and the data of the image."""
    for file in labelme_root.glob("*.json"):
        content = json.loads(file.read_text())
        content["shapes"].insert(0, {"label": "x" * 70000, "shape_type": "point", "points": [[1, 1]]})
        file.write_text(json.dumps({**content, "imageData": "A" * 70000, "imageHeight": content.pop("imageHeight")}))
    assert [len(r["annotations"]) for r in read(labelme_root)] == [2, 2]


def test_a_key_that_the_recognised_format_does_not_have(lvis_file: Path, read: Read) -> None:
    with pytest.raises(UserError, match=r"recognised as LVIS, which has no CLASSES; choose from.*IMAGES"):
        read(lvis_file, CLASSES=["dog"])


def test_files_that_come_later(yolo_root: Path, read: Read, tmp_path: Path) -> None:
    later = tmp_path / "later"
    with pytest.raises(UserError, match=r"own.*later/data\.yaml: there is no such file or folder"):
        read(later / "data.yaml", SPLIT="val")
    yolo_root.rename(later)
    assert len(DatasetCatalog.get("own")) == 1


def test_the_check_knows_all_formats(yolo_root: Path, capsys: Any, registered: None) -> None:
    (yolo_root / "labels/train/b.txt").write_text("0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2\n")
    entry = f"{{own_yolo: {{ANNOTATIONS: {yolo_root}, SPLIT: train}}}}"
    assert check(["own_yolo", "DATASETS.CUSTOM", entry]) == 1
    out = capsys.readouterr().out
    assert "2 images, 3 boxes, 2 classes" in out
    assert "labels/train/b.txt: line 2 skipped: unknown class 2, expected 0 to 1" in out
    register_custom({"own_yolo": {"ANNOTATIONS": str(yolo_root), "SPLIT": "train"}})  # the same again
