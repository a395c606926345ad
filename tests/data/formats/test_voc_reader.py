"""Tests of the VOC reader: corners, difficult objects, warnings and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sn2fpn.data import DatasetCatalog, register_custom
from sn2fpn.data.convert import main
from sn2fpn.data.formats.voc import load_voc_instances
from sn2fpn.data.formats.voc_files import find_voc_classes
from sn2fpn.errors import UserError
from sn2fpn.structures import BoxMode

CLASSES = ["cat", "dog"]


def change(root: Path, old: str, new: str) -> None:
    """Replace a part of b.xml."""
    path = root / "Annotations" / "b.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_healthy_tree_with_blank_lines_in_the_list(voc_root: Path) -> None:
    records = load_voc_instances(voc_root, "all", CLASSES)
    assert [r["image_id"] for r in records] == ["a", "b", "c"]
    assert (records[0]["height"], records[0]["width"]) == (60, 80)
    assert records[0]["file_name"] == str(voc_root / "JPEGImages" / "a.jpg")
    assert records[0]["annotations"] == [
        {"category_id": 1, "bbox": [0.0, 0.0, 80.0, 60.0], "bbox_mode": BoxMode.XYXY_ABS, "difficult": 0},
        {"category_id": 0, "bbox": [9.0, 19.0, 30.0, 50.0], "bbox_mode": BoxMode.XYXY_ABS, "difficult": 1},
    ]


def test_decimals(voc_root: Path) -> None:
    change(voc_root, "<xmin>10</xmin>", "<xmin>10.7</xmin>")
    assert load_voc_instances(voc_root, "all", CLASSES)[1]["annotations"][1]["bbox"] == [9.7, 19.0, 30.0, 50.0]


def test_size_from_the_picture(voc_root: Path) -> None:
    change(voc_root, "<size><width>80</width><height>60</height><depth>3</depth></size>", "")
    assert load_voc_instances(voc_root, "all", CLASSES)[1]["width"] == 80


@pytest.mark.parametrize("ending", [".png", ".TIF"])
def test_ids_have_images_of_their_own(voc_root: Path, ending: str) -> None:
    """A copied XML file may name the image of another id."""
    change(voc_root, "<filename>b.jpg</filename>", f"<filename>a{ending}</filename>")
    for file in (voc_root / "JPEGImages").iterdir():
        file.rename(file.with_suffix(ending))
    records = load_voc_instances(voc_root, "all", CLASSES)
    assert [Path(r["file_name"]).name for r in records] == [f"{stem}{ending}" for stem in "abc"]
    (voc_root / "JPEGImages" / f"b{ending}").unlink()
    assert load_voc_instances(voc_root, "all", CLASSES)[1]["file_name"] == records[0]["file_name"]


def test_the_named_ending_comes_first(voc_root: Path) -> None:
    """A mask may lie beside its image under the same name."""
    picture = voc_root / "JPEGImages" / "b.jpg"
    mask, picture = picture.with_suffix(".png"), picture.rename(picture.with_suffix(".tif"))
    mask.write_bytes(picture.read_bytes())
    change(voc_root, "<filename>b.jpg</filename>", "<filename>b.tif</filename>")
    assert load_voc_instances(voc_root, "all", CLASSES)[1]["file_name"] == str(picture)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>50</ymax></bndbox>", "", "no bndbox"),
        ("<xmax>30</xmax>", "<xmax>5</xmax>", "no area"),
        ("<xmax>30</xmax>", "<xmax>nan</xmax>", "no area"),
        ("<xmax>30</xmax>", "<xmax>wide</xmax>", "not four numbers"),
        ("<name>cat</name>", "<name>unicorn</name>", "unknown class 'unicorn'"),
        ("<name>cat</name>", "<name>cta</name>", "did you mean 'cat'"),
        ("<name>cat</name>", "", "no name"),
    ],
)
def test_broken_object_is_skipped_by_name(voc_root: Path, caplog: Any, old: str, new: str, message: str) -> None:
    change(voc_root, old, new)
    records = load_voc_instances(voc_root, "all", CLASSES)
    assert [len(r["annotations"]) for r in records] == [2, 1, 2]
    assert "b.xml: object 2" in caplog.text and message in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</object>", "", r"b\.xml.*line \d+"),
        ("<annotation>", '<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;">]><annotation>', r"b\.xml.*entity"),
    ],
)
def test_broken_file_is_refused(voc_root: Path, old: str, new: str, message: str) -> None:
    change(voc_root, old, new)
    with pytest.raises(UserError, match=message):
        load_voc_instances(voc_root, "all", CLASSES)


def test_missing_parts(voc_root: Path) -> None:
    with pytest.raises(UserError, match=r"al\.txt.*did you mean 'all'"):
        load_voc_instances(voc_root, "al", CLASSES)
    with pytest.raises(UserError, match=r"none of its 6 objects.*horse"):
        load_voc_instances(voc_root, "all", ["horse"])
    (voc_root / "Annotations" / "b.xml").unlink()
    with pytest.raises(UserError, match=r"b\.xml: annotation file does not exist"):
        load_voc_instances(voc_root, "all", CLASSES)
    (voc_root / "ImageSets" / "Main" / "all.txt").write_text("a\nc\na\n")
    with pytest.raises(UserError, match=r"all\.txt.*more than once.*'a'"):
        load_voc_instances(voc_root, "all", CLASSES)


def test_classes_of_a_tree(voc_root: Path) -> None:
    change(voc_root, "<name>cat</name>", "<name>ant</name>")
    assert find_voc_classes(voc_root) == ["ant", "cat", "dog"]
    (voc_root / "Annotations/s").mkdir()
    (voc_root / "Annotations/b.xml").rename(voc_root / "Annotations/s/b.XML")
    assert find_voc_classes(voc_root) == ["ant", "cat", "dog"]
    (voc_root / "ImageSets/Main/all.txt").write_text("a\ns/b\n")
    records = load_voc_instances(voc_root, "all", CLASSES)
    assert [len(r["annotations"]) for r in records] == [2, 1]


def test_a_plain_folder_has_no_split(voc_root: Path, registered: None) -> None:
    """A split that is not read would train and evaluate on the same images."""
    plain = {"ANNOTATIONS": str(voc_root / "Annotations"), "IMAGES": str(voc_root / "JPEGImages")}
    register_custom({"whole": plain, "part": {**plain, "SPLIT": "train"}})
    assert len(DatasetCatalog.get("whole")) == 3
    with pytest.raises(UserError, match=r"CUSTOM \(part\): SPLIT: .*/Annotations is a folder of XML .*found 'train'"):
        DatasetCatalog.get("part")
    with pytest.raises(UserError, match=r"ImageSets/Main/train\.txt"):
        load_voc_instances(voc_root / "Annotations", "train", CLASSES)


def test_a_plain_folder_with_other_endings_and_with_folders(voc_root: Path, read: Any, caplog: Any) -> None:
    folder, images = voc_root / "Annotations", str(voc_root / "JPEGImages")
    (folder / "a.xml").rename(folder / "a.XML")
    assert [r["image_id"] for r in read(folder, IMAGES=images)] == ["a", "b", "c"]
    assert "in folders below" not in caplog.text
    (folder / "s").mkdir()
    (folder / "b.xml").rename(folder / "s/b.Xml")
    assert [r["image_id"] for r in read(folder, IMAGES=images)] == ["a", "c"]
    assert "1 XML file lies in folders below, such as" in caplog.text and "s/b.Xml; only those in" in caplog.text
    (folder / "a.xml").write_text((folder / "c.xml").read_text())
    with pytest.raises(UserError, match="Annotations: 1 id occurs more than once, such as 'a'"):
        read(folder, IMAGES=images)


def test_images_of_a_tree_in_another_folder(voc_root: Path, registered: None, tmp_path: Path) -> None:
    images = (voc_root / "JPEGImages").rename(tmp_path / "elsewhere")
    register_custom({"own": {"ANNOTATIONS": str(voc_root), "SPLIT": "all", "IMAGES": str(images)}})
    assert DatasetCatalog.get("own")[0]["file_name"] == str(images / "a.jpg")
    assert main([str(voc_root), "--to", "voc", str(tmp_path / "out"), "--split", "all", "--images", str(images)]) == 0
    args = [str(voc_root / "Annotations"), "--to", "voc", str(tmp_path / "named"), "--images", str(images)]
    assert main([*args, "--split", "mine"]) == 0  # the name of a part that has none
    assert (tmp_path / "named/ImageSets/Main/mine.txt").read_text() == "a\nb\nc\n"
