"""Tests of the YOLO reader: layouts, polygons, and messages that name the file and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.data import DatasetCatalog, MetadataCatalog
from sn2fpn.errors import UserError

Read = Callable[..., list[dict[str, Any]]]


def test_polygons_are_masks_and_keypoints_are_not_read(yolo_root: Path, read: Read, boxes_of: Any) -> None:
    (yolo_root / "labels/val/c.txt").write_text("1 0.1 0.2 0.5 0.2 0.5 0.9\n")
    (record,) = read(yolo_root, SPLIT="val")
    assert boxes_of(record) == [("cat", pytest.approx([8, 12, 40, 54]))]
    assert record["annotations"][0]["segmentation"] == [pytest.approx([8, 12, 40, 12, 40, 54])]
    file = yolo_root / "data.yaml"
    file.write_text(file.read_text() + "kpt_shape: [1, 3]\n")
    (yolo_root / "labels/val/c.txt").write_text("0 0.5 0.5 0.5 0.5 0.1 0.1 2\n")
    assert boxes_of(read(yolo_root, SPLIT="val")[0]) == [("dog", [20, 15, 60, 45])]


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("train: images/train\nval: [images/val, images/train]\nnames: [dog, cat]\nnc: 2\n", ["c", "a", "b"]),
        ("path: .\ntrain: ../images/train\nval: list.txt\ntest:\nnames: [dog, cat]\n", ["b", "c"]),
        ("path: images\nval: val\nnames: [dog, cat]\n", ["c"]),
        ("val: images\nnames: [dog, cat]\n", ["a", "b", "c"]),
    ],
)
def test_layouts(yolo_root: Path, read: Read, yaml: str, names: list[str]) -> None:
    (yolo_root / "data.yaml").write_text(yaml)
    (yolo_root / "list.txt").write_text("./images/train/b.jpg\nimages/val/c.jpg\n")
    if "path: images" in yaml:  # below this folder, no folder is called images, so that labels lie beside the images
        (yolo_root / "labels/val/c.txt").rename(yolo_root / "images/val/c.txt")
    records = read(yolo_root, SPLIT="val")
    assert [Path(r["file_name"]).stem for r in records] == names
    assert all(len(r["annotations"]) == 2 for r in records)
    assert len({r["image_id"] for r in records}) == len(names)


def test_labels_beside_images_in_a_folder_of_that_name(yolo_root: Path, read: Read) -> None:
    """Annotation programs write the labels into the folder of the images, whatever it is called."""
    for labels in sorted((yolo_root / "labels/train").iterdir()):
        labels.rename(yolo_root / "images/train" / labels.name)
    assert [len(r.get("annotations", ())) for r in read(yolo_root, SPLIT="train")] == [0, 0]
    (yolo_root / "labels/train").rmdir()
    assert [len(r["annotations"]) for r in DatasetCatalog.get("own")] == [2, 2]


def test_labels_beside_the_folder_that_path_names(yolo_root: Path, read: Read) -> None:
    (yolo_root / "data.yaml").write_text("path: images\ntrain: train\nnames: [dog, cat]\n")
    assert [len(r["annotations"]) for r in read(yolo_root, SPLIT="train")] == [2, 2]
    labels = yolo_root / "labels/train/a.txt"
    moved = labels.rename(yolo_root / "images/train/a.txt")
    assert [len(r["annotations"]) for r in DatasetCatalog.get("own")] == [2, 2]
    moved.rename(labels)  # the file that has been looked for in vain is seen
    assert [len(r["annotations"]) for r in DatasetCatalog.get("own")] == [2, 2]


def test_labels_beside_images_below_a_folder_of_that_name(
    yolo_root: Path, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "images" / "set"
    root.parent.mkdir()
    yolo_root.rename(root)
    (root / "images/train").rename(root / "train")
    for file in (root / "labels/train").iterdir():
        file.rename(root / "train" / file.name)
    (root / "data.yaml").write_text(f"train: {root}/train\nnames: [dog, cat]\n")
    monkeypatch.chdir(root.parent)
    assert [len(r["annotations"]) for r in read(Path("set/data.yaml"), SPLIT="train")] == [2, 2]


def test_linked_folders_are_entered_once(yolo_root: Path, read: Read, tmp_path: Path) -> None:
    (yolo_root / "images/train").rename(tmp_path / "elsewhere")
    (yolo_root / "images/train").symlink_to(tmp_path / "elsewhere")
    (yolo_root / "images/again").symlink_to(yolo_root / "images")
    (yolo_root / "images/also_val").symlink_to(yolo_root / "images/val")
    (yolo_root / "data.yaml").write_text("val: images\nnames: [dog, cat]\n")
    records = read(yolo_root, SPLIT="val")
    assert [r["image_id"] for r in records] == ["val/c", "train/a", "train/b"]
    assert all(len(r["annotations"]) == 2 for r in records)


def test_images_without_label_files(yolo_root: Path, read: Read, caplog: Any) -> None:
    (yolo_root / "labels/train/a.txt").unlink()
    assert [len(r["annotations"]) for r in read(yolo_root, SPLIT="train")] == [0, 2]
    assert "1 of 2 images has no label file, such as" in caplog.text
    (yolo_root / "labels/train/a.txt").write_text("")
    assert [len(r["annotations"]) for r in DatasetCatalog.get("own")] == [0, 2]  # the new file is seen
    (yolo_root / "labels").rename(yolo_root / "label")
    assert all("annotations" not in r for r in read(yolo_root, SPLIT="train"))
    assert "good for prediction only" in caplog.text


def test_label_files_without_images_are_remarked(yolo_root: Path, read: Read, caplog: Any) -> None:
    (yolo_root / "labels/train/classes.txt").write_text("dog\ncat\n")
    read(yolo_root, SPLIT="train")
    assert "label files have no image" not in caplog.text
    (yolo_root / "images/train/b.jpg").unlink()
    assert len(read(yolo_root, SPLIT="train")) == 1
    assert "1 label file has no image, such as" in caplog.text and "b.txt; the objects in" in caplog.text
    (yolo_root / "labels/val/c.txt").rename(yolo_root / "labels/val/c.TXT")
    read(yolo_root, SPLIT="val")
    assert "c.TXT; the objects in" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .1 .1", "unknown class 2, expected 0 to 1"),
        ("dog .5 .5 .1 .1", "'dog' is not the number of a class"),
        ("0 .5 .5 .1", "3 numbers follow the class, expected 4 (a box)"),
        ("0 .5 .5 .1 .1 .9", "a fifth number is the score of a prediction"),
        ("0 .5 .5 .1 .1 .9 7", "the last of 6 numbers after the class is 7, expected a fraction of the image; if they"),
        ("0 .5 x .1 .1", "'0 .5 x .1 .1' is not the number of a class and finite numbers"),
        ("0 .5 nan .1 .1", "finite numbers"),
        ("0 40 30 20 20", "numbers up to 40, expected fractions of the image from 0 to 1"),
        ("0 .5 .5 0 .1", "has no area"),
        ("0 1.5 .5 .1 .1", "lies outside the 80x60 image"),
    ],
)
def test_a_broken_line_is_left_out(yolo_root: Path, read: Read, caplog: Any, line: str, message: str) -> None:
    (yolo_root / "labels/train/a.txt").write_text(f"1 .5 .5 .2 .2\n{line}\n")
    assert [len(r["annotations"]) for r in read(yolo_root, SPLIT="train")] == [1, 2]
    assert "labels/train/a.txt: line 2 skipped: " in caplog.text and message in caplog.text


def test_lines_of_a_tracker_are_remarked_once_because_they_can_be_polygons(
    yolo_root: Path, read: Read, caplog: Any
) -> None:
    (yolo_root / "labels/train/a.txt").write_text("0 .1 .1 .5 .1 .5 .5\n" * 2)
    (yolo_root / "labels/train/b.txt").write_text("0 .1 .1 .5 .1 .5 .5\n1 .1 .1 .5 .1 .5 .5 .1 .5\n")
    records = read(yolo_root, SPLIT="train")
    assert [[len(a["segmentation"][0]) for a in r["annotations"]] for r in records] == [[6, 6], [6, 8]]
    remark = "3 lines have 6 numbers after the class, such as in "
    assert caplog.text.count("6 numbers") == 1 and remark in caplog.text
    assert "polygon of three points; if they are a box, a score and a track number, remove the last two" in caplog.text


def test_a_triangle_may_reach_beyond_the_image_by_a_rounding_error(yolo_root: Path, read: Read) -> None:
    (yolo_root / "labels/val/c.txt").write_text("0 .1 .1 .5 .1 .5 1.01\n")
    (record,) = read(yolo_root, SPLIT="val")
    assert record["annotations"][0]["segmentation"] == [pytest.approx([8, 6, 40, 6, 40, 60.6])]


def test_a_box_beyond_the_image_is_clipped(yolo_root: Path, read: Read, boxes_of: Any, caplog: Any) -> None:
    (yolo_root / "labels/val/c.txt").write_text("0 0.9 0.5 0.4 0.5\n")
    assert boxes_of(read(yolo_root, SPLIT="val")[0]) == [("dog", pytest.approx([56, 15, 80, 45]))]
    assert "line 1: box" in caplog.text and "reaches beyond the 80x60 image" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("names: {0: dog, 1: cat}", "", r"data\.yaml: expected a YOLO file .* found the keys \['train', 'val'\]"),
        ("{0: dog, 1: cat}", "{0: dog, 2: cat}", r"names: expected the numbers 0 to 1 as keys, found \[0, 2\]"),
        ("{0: dog, 1: cat}", "[dog, no]", "names: class 1 is False, expected a text; put it in quotes"),
        ("{0: dog, 1: cat}", "[dog, dog]", "names: expected different names"),
        ("{0: dog, 1: cat}", "dog", "names: expected a list of classes"),
        ("names:", "nc: 3\nnames:", "nc is 3, but names has 2 classes"),
        ("images/train", "images/trian", r"data\.yaml: train: .*images/trian does not exist"),
        ("images/train", "/etc", "'/etc' leads outside of the folder"),
        ("images/train", "{a: 1}", "train: expected a path or a list of paths"),
        ("images/train", "labels/train", r"train: no image in .*labels/train"),
        ("train: images", "path: ../..\ntrain: images", r"'\.\./\.\.' leads outside of the folder"),
        ("names:", "names: {", r"data\.yaml: not readable as YAML"),
        ("names:", "a: !!python/object/apply:os.getcwd []\nnames:", "not readable as YAML"),
    ],
)
def test_a_broken_yaml_file_is_refused(yolo_root: Path, read: Read, old: str, new: str, message: str) -> None:
    file = yolo_root / "data.yaml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read(yolo_root, FORMAT="yolo", SPLIT="train")


def test_what_else_is_refused(yolo_root: Path, read: Read) -> None:
    with pytest.raises(UserError, match=r"SPLIT: .*data\.yaml has no images for 'valid'; did you mean 'val'"):
        read(yolo_root, SPLIT="valid")
    (yolo_root / "labels/train/b.txt").write_bytes(b"0 .5 \xff")
    with pytest.raises(UserError, match=r"labels/train/b\.txt: not readable as UTF-8"):
        read(yolo_root, SPLIT="train")
    (yolo_root / "images/train/a.png").write_bytes((yolo_root / "images/train/a.jpg").read_bytes())
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png have the same label file"):
        read(yolo_root, SPLIT="train")
    (yolo_root / "images/val/c.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"^.*c\.jpg: image file is empty \(0 bytes\)$"):
        read(yolo_root, SPLIT="val")
    (yolo_root / "more.yaml").write_text("names: [a]\n")
    (yolo_root / "data.yaml").rename(yolo_root / "other.yaml")
    with pytest.raises(UserError, match=r"expected one YAML file .* found more\.yaml, other\.yaml"):
        read(yolo_root, FORMAT="yolo", SPLIT="val")
    with pytest.raises(UserError, match=r"none\.yaml: the file does not exist"):
        read(yolo_root / "none.yaml", FORMAT="yolo", SPLIT="val")


def test_paths_outside_are_read_where_they_are_allowed(yolo_root: Path, read: Read) -> None:
    file = yolo_root / "inner" / "data.yaml"
    file.parent.mkdir()
    file.write_text("path: ..\n" + (yolo_root / "data.yaml").read_text())
    with pytest.raises(UserError, match="set ALLOW_OUTSIDE"):
        read(file, SPLIT="val")
    assert len(read(file, SPLIT="val", ALLOW_OUTSIDE=True)) == 1
    assert len(read(file, SPLIT="val", IMAGES=str(yolo_root))) == 1  # named by the user instead of by the file
    assert MetadataCatalog.get("own").thing_classes == ["dog", "cat"]
