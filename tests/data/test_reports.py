"""Tests of inputs that users of detectors stumble over: each kind is read right, or its check says what is wrong.

Every kind is tested twice: as a small set that is made here, and as the file in the folder of shared data.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sn2fpn.data import DatasetCatalog, get_dataset_dicts, load_coco_json, load_voc_instances
from sn2fpn.data.check import main
from sn2fpn.data.files import explain_missing
from sn2fpn.errors import ArgumentError
from sn2fpn.structures import BoxMode, box_of

CLASSES = ["cup", "book"]
BOXES = [[20, 30, 50, 50], [90, 50, 50, 50]]  # x, y, width, height of the two objects of each image
SOURCES = ["made here", "shared"]


def sound_coco() -> dict[str, Any]:
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    for i in (1, 2, 3):
        content["images"].append({"id": i, "file_name": f"p{i}.jpg", "width": 160, "height": 120})
        for c, (x, y, w, h) in enumerate(BOXES, 1):
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            found = {"image_id": i, "category_id": c, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            content["annotations"].append({**found, "id": len(content["annotations"]) + 1, "segmentation": [polygon]})
    return content


def change_annotations(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            change(annotation)

    return apply


def change_images(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        for image in content["images"]:
            change(image)

    return apply


def _crowd_of_objects(content: dict[str, Any]) -> None:
    first = content["annotations"][0]
    content["annotations"] += [{**first, "id": 10 + i, "bbox": [i % 150, i // 15, 5, 5]} for i in range(1600)]


def _normalise(annotation: dict[str, Any]) -> None:
    annotation["bbox"] = [v / s for v, s in zip(annotation["bbox"], (160, 120, 160, 120))]
    del annotation["segmentation"]


COCO_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "control": lambda content: None,
    "iscrowd_string_0": change_annotations(lambda a: a.update(iscrowd="0")),
    "iscrowd_null": change_annotations(lambda a: a.update(iscrowd=None)),
    "iscrowd_all_1": change_annotations(lambda a: a.update(iscrowd=1)),
    "category_id_string": change_annotations(lambda a: a.update(category_id=str(a["category_id"]))),
    "size_minus_1": change_images(lambda i: i.update(width=-1, height=-1)),
    "bbox_missing_polygon_there": change_annotations(lambda a: a.pop("bbox")),
    "segmentation_flat": change_annotations(lambda a: a.update(segmentation=a["segmentation"][0])),
    "parent_class_0": lambda content: content["categories"].insert(0, {"id": 0, "name": "things-k3fd"}),
    "same_name_two_ids": lambda content: content["categories"][1].update(name="cup"),
    "name_backslash": change_images(lambda i: i.update(file_name="images\\" + i["file_name"])),
    "name_prefix_twice": change_images(lambda i: i.update(file_name="images/" + i["file_name"])),
    "bbox_normalised": change_annotations(_normalise),
    "two_of_three_empty": lambda content: content.update(annotations=content["annotations"][:2]),
    "objects_1600": _crowd_of_objects,
}
VOC_CHANGES: dict[str, Callable[[str], str]] = {
    "control": lambda text: text,
    "size_zero": lambda text: text.replace("<width>160</width><height>120</height>", "<width>0</width><height/>"),
    "png": lambda text: text,
    "two_boxes": lambda text: text.replace("</object>\n<object><name>book</name><difficult>0</difficult>", ""),
    "namespace": lambda text: text.replace("<annotation>", '<annotation xmlns="http://example.org/voc">'),
}


def make_coco(folder: Path, kind: str) -> Path:
    (folder / "images").mkdir()
    for i in (1, 2, 3):
        Image.new("RGB", (160, 120), (60 * i, 80, 90)).save(folder / "images" / f"p{i}.jpg")
    content = sound_coco()
    COCO_CHANGES[kind](content)
    (folder / f"{kind}.json").write_text(json.dumps(content))
    return folder / f"{kind}.json"


def make_voc(root: Path, kind: str) -> Path:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    objects = "\n".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for name, (x, y, w, h) in zip(CLASSES, BOXES)
    )
    size = "<size><width>160</width><height>120</height></size>"
    for i in "123":
        text = f"<annotation><filename>a{i}.jpg</filename>{size}\n{objects}\n</annotation>"
        (root / "Annotations" / f"a{i}.xml").write_text(VOC_CHANGES[kind](text))
        Image.new("RGB", (160, 120)).save(root / "JPEGImages" / f"a{i}.{'png' if kind == 'png' else 'jpg'}")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a1\na2\na3\n")
    return root


@pytest.fixture(params=SOURCES)
def find_coco(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Give the annotation file of a kind; its images are in the folder `images` beside it."""
    if request.param == "made here":
        return lambda kind: make_coco(tmp_path, kind)
    folder = _reports(request) / "coco"
    return lambda kind: folder / f"{kind}.json"


@pytest.fixture(params=SOURCES)
def find_voc(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Give the VOC folder of a kind."""
    if request.param == "made here":
        return lambda kind: make_voc(tmp_path / kind, kind)
    folder = _reports(request) / "voc"
    return lambda kind: folder / kind


def _reports(request: pytest.FixtureRequest) -> Path:
    folder = request.getfixturevalue("shared_data") / "reports"
    if not folder.is_dir():
        pytest.skip(f"no sample data in {folder}")
    return folder


def check(file: Path, capsys: pytest.CaptureFixture[str], images: Path | None = None) -> tuple[int, list[str]]:
    """Run the check on a COCO file, and return its exit code and its notes and problems."""
    entry = {"NAME": "report", "FORMAT": "coco", "JSON": str(file), "IMAGES": str(images or file.parent / "images")}
    code = main(["report", "DATASETS.CUSTOM", repr([entry])])
    lines = capsys.readouterr().out.splitlines()
    return code, [line for line in lines if line.startswith(("note: ", "problem: "))]


def boxes_of(records: list[dict[str, Any]]) -> list[tuple[int, list[float]]]:
    return [(a["category_id"], box_of(a, BoxMode.XYWH_ABS).tolist()) for r in records for a in r["annotations"]]


RIGHT = [(c, [float(v) for v in box]) for _ in range(3) for c, box in enumerate(BOXES)]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "kind",
    [
        *("control", "iscrowd_string_0", "iscrowd_null", "category_id_string", "size_minus_1"),
        *("bbox_missing_polygon_there", "segmentation_flat"),
    ],
)
def test_coco_files_that_are_read_right(find_coco: Callable, kind: str, capsys: Any, caplog: Any) -> None:
    file = find_coco(kind)
    records = load_coco_json(file, file.parent / "images")
    assert boxes_of(records) == RIGHT
    assert [(r["height"], r["width"]) for r in records] == [(120, 160)] * 3
    assert not any(a["iscrowd"] for r in records for a in r["annotations"])
    assert all(len(a["segmentation"][0]) == 8 for r in records for a in r["annotations"])
    assert not caplog.records
    assert check(file, capsys) == (0, [])


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("iscrowd_all_1", 1, "problem: .*all 6 objects are crowd regions"),
        ("bbox_normalised", 1, "problem: .*the coordinates of all 6 boxes are at most 1"),
        ("same_name_two_ids", 1, "problem: .*category name 'cup' is given to the ids 1 and 2"),
        ("name_backslash", 1, r"3 of 3 images are missing.*3 of 3 .* slashes instead of backslashes .*images/p1\.jpg"),
        ("name_prefix_twice", 1, r"3 of 3 images are missing.*3 of 3 .* without 'images' after .*images/p1\.jpg"),
        ("parent_class_0", 0, "note: .*1 of 3 classes has no object: 'things-k3fd'; to drop a class, remove it"),
        ("two_of_three_empty", 0, "note: .*2 of 3 images have no object"),
        ("objects_1600", 0, "note: .*1 of 3 images has more than 100 objects.*TEST.DETECTIONS_PER_IMAGE"),
    ],
)
def test_the_check_says_what_is_wrong_in_one_line(
    find_coco: Callable, kind: str, code: int, words: str, capsys: Any
) -> None:
    found, lines = check(find_coco(kind), capsys)
    assert found == code and len(lines) == 1, lines
    assert re.search(words, lines[0]), lines[0]


@pytest.mark.parametrize("kind", ["iscrowd_all_1", "bbox_normalised"])
def test_readers_warn_of_sets_that_teach_nothing(find_coco: Callable, kind: str, caplog: Any) -> None:
    file = find_coco(kind)
    assert len(load_coco_json(file, file.parent / "images")) == 3
    assert ("crowd regions" if kind == "iscrowd_all_1" else "at most 1") in caplog.text


@pytest.mark.parametrize("kind", ["control", "size_zero", "png", "two_boxes", "namespace"])
def test_voc_folders_that_are_read_right(find_voc: Callable, kind: str, caplog: Any) -> None:
    root = find_voc(kind)
    records = load_voc_instances(root, "train", CLASSES)
    right = [(0, box) for _, box in RIGHT] if kind == "two_boxes" else RIGHT
    assert boxes_of(records) == right and not caplog.records
    assert [(r["height"], r["width"]) for r in records] == [(120, 160)] * 3
    assert [Path(r["file_name"]).is_file() for r in records] == [True] * 3


def test_training_on_crowds_alone_says_so(tmp_path: Path, registered: None) -> None:
    file = make_coco(tmp_path, "iscrowd_all_1")
    DatasetCatalog.register("crowds", lambda: load_coco_json(file, tmp_path / "images", "crowds"))
    with pytest.raises(ArgumentError, match=r"none of the 3 images .*; all 6 objects are crowd regions"):
        get_dataset_dicts("crowds", filter_empty=True)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (".", r"3 of 3 that were looked for are found in the folder .*images, such as .*images/p1\.jpg"),
        ("imags", "3 of 3 that were looked for are found in the folder"),
        ("a/imags", "the folder .*/a does not exist; 3 of 3 that were looked for are found in the folder .*/images"),
        ("images/a", "the folder .*/images/a does not exist; 3 of 3 .* are found without 'a' after .*/images"),
    ],
)
def test_a_wrong_folder_of_images_is_explained(tmp_path: Path, images: str, words: str, capsys: Any) -> None:
    _, (line,) = check(make_coco(tmp_path, "control"), capsys, tmp_path / images)
    assert "3 of 3 images are missing" in line and re.search(words, line), line


@pytest.mark.usefixtures("registered")
def test_another_ending_of_the_names_is_explained(tmp_path: Path, capsys: Any) -> None:
    file = make_coco(tmp_path, "control")
    for image in (tmp_path / "images").iterdir():
        image.rename(image.with_suffix(".PNG"))
    _, (line,) = check(file, capsys)
    assert "3 of 3 that were looked for are found with the ending .PNG" in line


@pytest.mark.parametrize(("written", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_another_unicode_form_of_the_names_is_explained(tmp_path: Path, written: str, on_disk: str) -> None:
    """Files that have passed through macOS have another form of é than most annotation files."""
    (tmp_path / unicodedata.normalize(on_disk, "é.jpg")).touch()
    line = explain_missing([tmp_path / unicodedata.normalize(written, "é.jpg")], 1)
    assert f"1 of 1 that were looked for are found in the Unicode form {on_disk}, such as" in line


@pytest.mark.parametrize("value", ["0", "False", "false", " NULL ", "0.0", None, False, 0, 0.0])
def test_every_form_of_no(tmp_path: Path, value: Any) -> None:
    file = make_coco(tmp_path, "control")
    content = sound_coco()
    change_annotations(lambda a: a.update(iscrowd=value))(content)
    file.write_text(json.dumps(content))
    assert not any(a["iscrowd"] for r in load_coco_json(file, tmp_path / "images") for a in r["annotations"])


@pytest.mark.parametrize(("value", "crowd"), [("1", 1), ("True", 1), (True, 1), (1.0, 1), ("no idea", None), (2, None)])
def test_flags_that_are_set_or_unclear(tmp_path: Path, caplog: Any, value: Any, crowd: int | None) -> None:
    file, content = make_coco(tmp_path, "control"), sound_coco()
    content["annotations"][1]["iscrowd"] = value
    file.write_text(json.dumps(content))
    found = load_coco_json(file, tmp_path / "images")[0]["annotations"]
    assert [a["iscrowd"] for a in found] == ([0] if crowd is None else [0, crowd])
    unclear = f"iscrowd is {value!r}, expected 0, 1, true, false or null"
    assert (unclear in caplog.text and "1 with an unclear iscrowd" in caplog.text) == (crowd is None)


@pytest.mark.parametrize("swap", [False, True])
def test_ids_and_sizes_as_text(tmp_path: Path, swap: bool) -> None:
    """Either side of a reference may be text; the images keep the form of their own ids."""
    file, content = make_coco(tmp_path, "control"), sound_coco()
    for image in content["images"]:
        image.update(width=f"{image['width']}", height=float(image["height"]), id=str(image["id"]))
    content["categories"][0]["id"] = "1"
    content["categories"][1]["id"] = 2.0
    if swap:
        for annotation in content["annotations"]:
            annotation["image_id"] = f"{annotation['image_id']}.0"
        for image in content["images"]:
            image["id"] = int(image["id"])
    file.write_text(json.dumps(content))
    records = load_coco_json(file, tmp_path / "images")
    assert boxes_of(records) == RIGHT
    assert [r["image_id"] for r in records] == ([1, 2, 3] if swap else ["1", "2", "3"])


def test_run_lengths_without_a_box_get_their_tight_box(tmp_path: Path) -> None:
    file, content = make_coco(tmp_path, "control"), sound_coco()
    runs = [120 * 20 + 30]
    for _ in range(49):
        runs += [50, 70]
    runs += [50]
    runs.append(160 * 120 - sum(runs))
    content["annotations"][0].update(segmentation={"size": [120, 160], "counts": runs}, bbox=None)
    file.write_text(json.dumps(content))
    assert load_coco_json(file, tmp_path / "images")[0]["annotations"][0]["bbox"] == BOXES[0]


def test_refused_sizes_have_no_false_followers(tmp_path: Path, registered: None, capsys: Any) -> None:
    """An image whose size is unknown is one problem; its two objects are not reported again."""
    file = make_coco(tmp_path, "size_minus_1")
    (tmp_path / "images" / "p2.jpg").unlink()
    code, (line,) = check(file, capsys)
    assert code == 1 and "image 2 has width -1 and height -1, and its size cannot be read" in line


def test_voc_ids_with_spaces_flags_and_other_names(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", "control")
    for old, new in (("a1", "my photo 1"), ("a2", "my photo")):
        (root / "Annotations" / f"{old}.xml").rename(root / "Annotations" / f"{new}.xml")
        (root / "JPEGImages" / f"{old}.jpg").rename(root / "JPEGImages" / f"{new}.jpg")
    xml = root / "Annotations" / "a3.xml"
    xml.write_text(xml.read_text().replace("a3.jpg", "photos\\taken.webp").replace(">0<", "> TRUE <", 1))
    (root / "JPEGImages" / "a3.jpg").unlink()
    Image.new("RGB", (160, 120)).save(root / "JPEGImages" / "taken.webp")
    (root / "ImageSets" / "Main" / "train.txt").write_bytes("\ufeffmy photo 1\r\nmy photo  -1\r\na3 1\r\n".encode())
    records = load_voc_instances(root, "train", CLASSES)
    assert [r["image_id"] for r in records] == ["my photo 1", "my photo", "a3"]
    assert [Path(r["file_name"]).name for r in records] == ["my photo 1.jpg", "my photo.jpg", "taken.webp"]
    assert [a["difficult"] for a in records[2]["annotations"]] == [1, 0]


def test_voc_elements_that_are_not_read_are_named(tmp_path: Path, registered: None, capsys: Any) -> None:
    root = make_voc(tmp_path / "voc", "control")
    xml = root / "Annotations" / "a2.xml"
    xml.write_text(
        xml.read_text().replace("<bndbox>", "<robndbox/><bndbox>", 1).replace("</annotation>", "<Object/></annotation>")
    )
    entry = {"NAME": "odd", "FORMAT": "voc", "ROOT": str(root), "SPLIT": "train"}
    assert main(["odd", "DATASETS.CUSTOM", repr([entry])]) == 0
    out = capsys.readouterr().out
    assert "XML elements that are not read: 'Object' (1), 'object/robndbox' (1)" in out


def test_sub_pixel_boxes_are_doubted(tmp_path: Path, caplog: Any) -> None:
    file, content = make_coco(tmp_path, "control"), sound_coco()
    change_annotations(lambda a: a.update(bbox=[30, 40, 0.5, 20], segmentation=[]))(content)
    file.write_text(json.dumps(content))
    load_coco_json(file, tmp_path / "images")
    assert "all 6 boxes are less than a pixel wide or high" in caplog.text


def test_kinds_made_here_are_the_shared_ones(shared_data: Path) -> None:
    folder = shared_data / "reports"
    if not folder.is_dir():
        pytest.skip(f"no sample data in {folder}")
    assert {p.stem for p in (folder / "coco").glob("*.json")} == set(COCO_CHANGES)
    assert {p.name for p in (folder / "voc").iterdir()} == set(VOC_CHANGES)
