"""Tests of the CVAT reader: shapes, masks, subsets, and messages that name the image and the shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as mask_api

from sn2fpn.data import MetadataCatalog
from sn2fpn.errors import UserError

Read = Callable[..., list[dict[str, Any]]]
DOG = '<box label="dog" occluded="0" xtl="8.0" ytl="6.0" xbr="40.0" ybr="30.0" z_order="0"></box>'


def change(file: Path, old: str, new: str) -> None:
    """Replace the last occurrence of a part, which is that in the image b.jpg."""
    head, found, tail = file.read_text().rpartition(old)
    assert found
    file.write_text(head + new + tail)


def test_shapes(cvat_file: Path, read: Read, boxes_of: Any) -> None:
    polygon = '<polygon label="dog" points="{}" group_id="1"/>'
    change(
        cvat_file,
        DOG,
        polygon.format("1,2;10,2;10,8.5")
        + polygon.format("30,5;40,5;40,18")
        + '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90">'
        '<attribute name="Difficult">true</attribute></box>'
        '<mask label="dog" rle="1, 2, 2, 1" left="4" top="6" width="3" height="2"/>'
        '<box label="dog" xtl="1" ytl="1" xbr="9" ybr="9"><attribute name="is_crowd">1</attribute></box>',
    )
    record = read(cvat_file)[1]
    assert boxes_of(record)[:-1] == [
        ("dog", [1, 2, 40, 18]),
        ("cat", pytest.approx([15, 5, 25, 25])),
        ("dog", [5, 6, 7, 8]),
        ("dog", [1, 1, 9, 9]),
    ]
    first, second, third, fourth, _ = record["annotations"]
    assert first["segmentation"] == [[1, 2, 10, 2, 10, 8.5], [30, 5, 40, 5, 40, 18]]
    assert second["difficult"] == 1 and fourth["iscrowd"] == 1
    mask = mask_api.decode(third["segmentation"])
    assert mask.shape == (60, 80) and mask.sum() == 3 and mask[6:8, 4:7].tolist() == [[0, 1, 1], [0, 0, 1]]


def test_subsets_and_classes(cvat_file: Path, read: Read) -> None:
    assert [r["image_id"] for r in read(cvat_file, SPLIT="val")] == ["b.jpg"]
    assert MetadataCatalog.get("own").thing_classes == ["dog", "cat"]  # in the order of the task
    with pytest.raises(UserError, match=r"SPLIT: .* has no subset 'test'; choose from: train, val"):
        read(cvat_file, SPLIT="test")
    read(cvat_file, CLASSES=["cat"])
    assert MetadataCatalog.get("own").thing_classes == ["cat"]
    text = cvat_file.read_text()
    cvat_file.write_text(text[: text.index("<meta>")] + text[text.index("</meta>") + 7 :])
    read(cvat_file)
    assert MetadataCatalog.get("own").thing_classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ('<ellipse label="dog" cx="1" cy="2" rx="3" ry="4"/>', "ellipse 1 (dog) skipped: the shape is a ellipse"),
        ('<box label="dgo" xtl="1" ytl="2" xbr="3" ybr="4"/>', "unknown class 'dgo'; did you mean 'dog'"),
        ('<box label="dog" xtl="1" ytl="2" xbr="3"/>', "xtl, ytl, xbr, ybr: expected 4 finite numbers, found"),
        ('<box label="dog" xtl="3" ytl="2" xbr="3" ybr="4"/>', "has no area"),
        ('<box label="dog" xtl="3" ytl="2" xbr="9" ybr="8" rotation="x"/>', "rotation: expected 1 finite numbers"),
        ('<polygon label="dog" points="1,2;3"/>', "points: expected 2 finite numbers, found ['3']"),
        ('<polygon label="dog" points="1,2;3,4"/>', "no polygon with at least 3 points"),
        ('<mask label="dog" rle="1,2" left="0" top="0" width="2" height="2"/>', "with 3 pixels in its runs"),
        ('<mask label="dog" rle="4" left="79" top="0" width="2" height="2"/>', "does not fit the 80x60 image"),
        ('<mask label="dog" rle="x" left="0" top="0" width="2" height="2"/>', "expected whole numbers as left"),
        ('<box label="dog" xtl="1" ytl="2" xbr="3" ybr="4"><attribute name="difficult">?</attribute></box>', "is '?'"),
    ],
)
def test_a_broken_shape_is_left_out(cvat_file: Path, read: Read, caplog: Any, new: str, message: str) -> None:
    change(cvat_file, DOG, new)
    assert [len(r["annotations"]) for r in read(cvat_file)] == [2, 1]
    assert "annotations.xml: image 'b.jpg', " in caplog.text and message in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</image>", "", r"annotations\.xml: not readable as XML: .*line \d+"),
        ('name="b.jpg"', "", r"annotations\.xml: image 2 \(None\): it has no name"),
        ('name="b.jpg"', 'name="../b.jpg"', r"image 2 \(\.\./b\.jpg\): the name '\.\./b\.jpg' leads outside"),
        ('name="b.jpg"', 'name="a.jpg"', "image 2 .*another image has the same name"),
        ('height="60"', 'height="1000000000"', r"image 2 \(b\.jpg\): size is 80x1000000000 pixels, expected at most"),
        ("</annotations>", "<track/></annotations>", 'CVAT for images 1.1", found the tracks of a video'),
        ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "entity declarations are not allowed"),
    ],
)
def test_a_broken_file_is_refused(cvat_file: Path, read: Read, old: str, new: str, message: str) -> None:
    change(cvat_file, old, new)
    with pytest.raises(UserError, match=message):
        read(cvat_file)


def test_files_without_images_and_of_another_kind(cvat_file: Path, read: Read) -> None:
    cvat_file.write_text("<annotations></annotations>")
    with pytest.raises(UserError, match=r"annotations\.xml: has no image"):
        read(cvat_file)
    cvat_file.write_text("<annotation></annotation>")
    with pytest.raises(UserError, match="whose element is <annotations>; found <annotation>"):
        read(cvat_file, FORMAT="cvat")


def test_images_in_folders_of_subsets_and_frames_without_endings(cvat_file: Path, read: Read) -> None:
    """So exports CVAT a project, and the frames of a task that is a video."""
    folder = cvat_file.parent / "images"
    (folder / "train").mkdir()
    (folder / "a.jpg").rename(folder / "train/a.jpg")
    (folder / "b.jpg").rename(folder / "b.PNG")
    change(cvat_file, 'name="b.jpg"', 'name="b"')
    assert [r["file_name"] for r in read(cvat_file)] == [f"{folder}/train/a.jpg", f"{folder}/b.PNG"]
    (folder / "a.jpg").write_bytes((folder / "b.PNG").read_bytes())
    (folder / "b.PNG").unlink()
    assert [r["file_name"] for r in read(cvat_file)] == [f"{folder}/a.jpg", f"{folder}/b"]
