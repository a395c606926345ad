"""Tests of the LabelMe reader: shapes, groups, paths of images, and messages that name the file and the shape."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.data import MetadataCatalog
from sn2fpn.errors import UserError

Read = Callable[..., list[dict[str, Any]]]


def change(root: Path, **changes: Any) -> None:
    """Change the first shape of b.json; keys of the file start with an underscore."""
    content = json.loads((root / "b.json").read_text())
    for key, value in changes.items():
        (content if key.startswith("_") else content["shapes"][0])[key.lstrip("_")] = value
    (root / "b.json").write_text(json.dumps(content))


def test_polygons_of_a_group_are_one_object(labelme_root: Path, read: Read, boxes_of: Any) -> None:
    polygon = {"label": "dog", "shape_type": "polygon", "group_id": 4}
    shapes = [
        {**polygon, "points": [[1, 2], [10, 2], [10, 8]]},
        {**polygon, "points": [[30, 5], [40, 5], [40, 18]]},
        {**polygon, "points": [[50, 5], [60, 5], [60, 18]], "label": "cat"},
        {**polygon, "points": [[50, 5], [60, 5], [60, 18]], "group_id": None, "flags": {"difficult": True}},
        {**polygon, "points": [[60, 18], [50, 5]], "shape_type": "rectangle", "flags": {}, "difficult": False},
    ]
    change(labelme_root, _shapes=shapes)
    record = read(labelme_root)[1]
    assert boxes_of(record) == [
        ("dog", [1, 2, 40, 18]),
        ("cat", [50, 5, 60, 18]),
        ("dog", [50, 5, 60, 18]),
        ("dog", [50, 5, 60, 18]),
    ]
    assert record["annotations"][0]["segmentation"] == [[1, 2, 10, 2, 10, 8], [30, 5, 40, 5, 40, 18]]
    assert [a.get("difficult") for a in record["annotations"]] == [None, None, 1, None]
    assert MetadataCatalog.get("own").thing_classes == ["cat", "dog"]  # sorted, unless CLASSES gives an order


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape_type": "circle"}, "the shape is a circle, expected a rectangle or a polygon"),
        ({"points": [[1, 2]]}, "a rectangle needs 2 points, found 1"),
        ({"points": [[1, None], [3, 4]]}, "expected [[x, y], …] of finite numbers"),
        ({"points": [[1, 2], [1, 4]]}, "has no area"),
        ({"shape_type": "polygon"}, "a polygon needs 3 points, found 2"),
        ({"label": ""}, "shape 1 (no label) skipped: label: expected a text"),
        ({"label": "dgo"}, "unknown class 'dgo'; did you mean 'dog'"),
        ({"flags": {"difficult": "maybe"}}, "difficult is 'maybe', expected 0, 1"),
    ],
)
def test_a_broken_shape_is_left_out(
    labelme_root: Path, read: Read, caplog: Any, changes: dict[str, Any], message: str
) -> None:
    change(labelme_root, **changes)
    assert [len(r["annotations"]) for r in read(labelme_root, CLASSES=["dog", "cat"])] == [2, 1]
    assert "b.json: shape 1" in caplog.text and message in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_shapes": None}, r"b\.json: expected a LabelMe file with a list 'shapes', found NoneType"),
        ({"_shapes": [3]}, r"b\.json: shapes\[0\] is int, expected an object"),
        ({"_imagePath": None}, r"b\.json: expected the path of the image as imagePath, found None"),
        ({"_imagePath": "..\\pictures\\b.jpg"}, r"b\.json: the name '\.\./pictures/b\.jpg' leads outside .*IMAGES"),
        ({"_imagePath": "c.jpg", "_imageHeight": None}, r"c\.jpg: image file does not exist"),
    ],
)
def test_a_broken_file_is_refused(labelme_root: Path, read: Read, changes: dict[str, Any], message: str) -> None:
    change(labelme_root, **changes)
    with pytest.raises(UserError, match=message):
        read(labelme_root)


def test_images_beside_the_folder_of_the_files(labelme_root: Path, read: Read) -> None:
    (labelme_root / "json/part").mkdir(parents=True)
    (labelme_root / "b.json").rename(labelme_root / "json/part/b.json")
    change(labelme_root / "json/part", _imagePath="..\\..\\b.jpg")
    assert [r["file_name"] for r in read(labelme_root)] == [str(labelme_root / name) for name in ("a.jpg", "b.jpg")]
    change(labelme_root / "json/part", _imagePath="../../../b.jpg")
    with pytest.raises(UserError, match=r"b\.json: the name 'json/part/\.\./\.\./\.\./b\.jpg' leads outside"):
        read(labelme_root)


def test_images_in_another_folder(labelme_root: Path, read: Read, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in "ab":
        (labelme_root / f"{name}.jpg").rename(pictures / f"{name}.jpg")
    change(labelme_root, _imagePath="..\\pictures\\b.jpg", _imageHeight=0)
    records = read(labelme_root, IMAGES=str(pictures))
    assert [(r["file_name"], r["height"]) for r in records] == [(str(pictures / f"{n}.jpg"), 60) for n in "ab"]


def test_what_is_no_labelme_folder(labelme_root: Path, read: Read) -> None:
    (labelme_root / "b.json").write_text("{")
    with pytest.raises(UserError, match=r"b\.json: not readable as JSON at line 1"):
        read(labelme_root)
    for name in "ab":
        (labelme_root / f"{name}.json").unlink()
    with pytest.raises(UserError, match="expected LabelMe's JSON files, found none"):
        read(labelme_root, FORMAT="labelme")
    with pytest.raises(UserError, match=r"a\.jpg: expected the folder of LabelMe's JSON files, found no folder"):
        read(labelme_root / "a.jpg", FORMAT="labelme")


def test_capital_endings_and_hidden_folders(labelme_root: Path, read: Read) -> None:
    (labelme_root / ".thumbnails").mkdir()
    (labelme_root / ".thumbnails/a.json").write_text((labelme_root / "a.json").read_text())
    (labelme_root / "b.json").rename(labelme_root / "b.JSON")
    assert [r["image_id"] for r in read(labelme_root)] == ["a", "b"]
    (labelme_root / "b.json").write_text((labelme_root / "b.JSON").read_text())
    with pytest.raises(UserError, match=r"b\.json: .*b\.JSON has the same name; expected one file for each image"):
        read(labelme_root)


def test_a_folder_that_may_not_be_read_is_named(
    labelme_root: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    (labelme_root / "part").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "part":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"labelme/part: the folder cannot be read: .*Permission denied"):
        read(labelme_root)


def test_linked_folders_are_entered(labelme_root: Path, read: Read, tmp_path: Path) -> None:
    for link in ("part", "part/loop"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / link).symlink_to(labelme_root if link == "part" else tmp_path / "set")
    assert [r["image_id"] for r in read(tmp_path / "set", FORMAT="labelme")] == ["part/a", "part/b"]
