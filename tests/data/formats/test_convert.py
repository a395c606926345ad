"""Tests of `python -m sn2fpn.data.convert`: round trips, counts, what formats cannot hold, and messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sn2fpn.data import load_coco_json
from sn2fpn.data.convert import main
from sn2fpn.data.formats import FORMATS, Source
from sn2fpn.structures import box_of

POLYGON = [[10.0, 10.0, 30.5, 10.0, 30.5, 40.25]]
RLE = {"size": [60, 80], "counts": [600, 60, 4140]}


def convert(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def read(folder: Path, data_format: str, split: str) -> tuple[list[dict[str, Any]], list[str]]:
    file = folder / "annotations" / f"{split}.json" if data_format == "coco" else folder
    records, metadata = FORMATS[data_format].read(Source("x", file, split=None if data_format == "coco" else split))
    return records, metadata["thing_classes"]


def summary(records: list[dict[str, Any]], digits: int) -> list[Any]:
    """Return what all formats keep of images and objects."""
    return [
        (
            Path(r["file_name"]).stem,
            (r["height"], r["width"]),
            [(a["category_id"], [round(float(v), digits) for v in box_of(a)]) for a in r["annotations"]],
        )
        for r in records
    ]


@pytest.fixture
def rich_coco(tmp_path: Path) -> Path:
    """A COCO file with all that a format may lose: a crowd region, both kinds of masks, and unsorted classes."""
    images = tmp_path / "rich" / "images"
    images.mkdir(parents=True)
    for name in ("z.jpg", "sub/z.png", "m.x.jpg"):
        (images / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((60, 80, 3), len(name), np.uint8)).save(images / name)
    box = {"bbox": [10.25, 10.125, 20.5, 30.125], "iscrowd": 0}
    content = {
        "images": [
            {"id": 7, "file_name": "z.jpg", "height": 60, "width": 80},
            {"id": 9, "file_name": "sub/z.png", "height": 60, "width": 80},
            {"id": 11, "file_name": "m.x.jpg", "height": 60, "width": 80},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "segmentation": POLYGON, "area": 300, **box},
            {"id": 2, "image_id": 7, "category_id": 3, "segmentation": POLYGON * 2, "area": 300, **box},
            {"id": 3, "image_id": 7, "category_id": 3, **box, "iscrowd": 1, "segmentation": RLE, "area": 60},
            {"id": 4, "image_id": 9, "category_id": 44, "area": 617.5, **box},
        ],
        "categories": [{"id": 18, "name": "ant"}, {"id": 3, "name": "zebra"}, {"id": 44, "name": "big bird"}],
    }
    (tmp_path / "rich" / "instances_train2017.json").write_text(json.dumps(content))
    return tmp_path / "rich" / "instances_train2017.json"


def test_coco_to_yolo_and_back(rich_coco: Path, tmp_path: Path, capsys: Any) -> None:
    before = load_coco_json(rich_coco, rich_coco.parent / "images")
    assert convert(rich_coco, "--to", "yolo", tmp_path / "yolo") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:20].strip(): line.split()[-2:] for line in lines}
    assert rows["images"] == ["3", "3"] and rows["objects"] == ["4", "3"]
    assert rows["zebra"] == ["2", "1"] and rows["ant"] == rows["big bird"] == ["1", "1"]
    assert rows["crowd regions"] == ["1", "0"] and rows["masks"] == ["3", "0"]
    assert [line for line in lines if "does not keep" in line] == [
        "YOLO does not keep 1 names of images (a number is added to names that repeat)",
        "YOLO does not keep 1 crowd regions (they are not written)",
        "YOLO does not keep 2 masks which --masks writes as polygons (their boxes are written)",
    ]
    assert f"my_train: {{ANNOTATIONS: {tmp_path}/yolo, SPLIT: train}}" in lines[-1]
    assert convert(tmp_path / "yolo", "--to", "coco", tmp_path / "back") == 0
    after, names = read(tmp_path / "back", "coco", "train")
    assert names == ["zebra", "ant", "big bird"]  # COCO's order is that of the ids
    expected = summary([r | {"annotations": [a for a in r["annotations"] if not a["iscrowd"]]} for r in before], 5)
    found = {stem: rest for stem, *rest in summary(after, 5)}
    assert found == {stem: rest for stem, (_, *rest) in zip(("z", "z_2", "m.x"), expected)}
    assert {Path(r["file_name"]).name for r in after} == {"z.jpg", "z_2.png", "m.x.jpg"}


def test_coco_to_voc_and_back(rich_coco: Path, tmp_path: Path, capsys: Any) -> None:
    assert convert(rich_coco, "--to", "voc", tmp_path / "voc") == 0
    out = capsys.readouterr().out
    assert "Pascal VOC does not keep 2 masks (their boxes are written)" in out and "1 crowd regions" in out
    records, names = read(tmp_path / "voc", "voc", "train2017")
    assert names == ["zebra", "ant", "big bird"]
    assert records[0]["annotations"][0]["bbox"] == [10.25, 10.125, 30.75, 40.25]
    assert convert(tmp_path / "voc", "--to", "coco", tmp_path / "back") == 0
    after, names = read(tmp_path / "back", "coco", "train2017")
    assert names == ["zebra", "ant", "big bird"] and summary(after, 4) == summary(records, 4)
    assert [r["image_id"] for r in after] == [1, 2, 3]
    assert "COCO does not keep 3 ids of images (they are numbered from 1)" in capsys.readouterr().out


def test_coco_to_coco_keeps_everything(rich_coco: Path, tmp_path: Path, capsys: Any) -> None:
    assert convert(rich_coco, "--to", "coco", tmp_path / "out") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "does not keep" in line] == [
        "COCO does not keep 1 names of images (a number is added to names that repeat)"
    ]
    before = load_coco_json(rich_coco, rich_coco.parent / "images")
    after = load_coco_json(tmp_path / "out/annotations/train2017.json", tmp_path / "out/images/train2017")
    for a, b in zip(before, after, strict=True):
        assert Path(b["file_name"]).read_bytes() == Path(a["file_name"]).read_bytes()
        for found in (x for x in a["annotations"] if isinstance(x.get("segmentation"), dict)):
            found["segmentation"]["counts"] = found["segmentation"]["counts"].decode("ascii")
        assert a["annotations"] == b["annotations"] and a["image_id"] == b["image_id"]
    content = json.loads((tmp_path / "out/annotations/train2017.json").read_text())
    assert content["categories"] == [
        {"id": 3, "name": "zebra"},
        {"id": 18, "name": "ant"},
        {"id": 44, "name": "big bird"},
    ]


def test_polygons_of_yolo(rich_coco: Path, tmp_path: Path, capsys: Any) -> None:
    assert convert(rich_coco, "--to", "yolo", tmp_path / "yolo", "--masks") == 0
    out = capsys.readouterr().out
    assert "YOLO does not keep 1 masks that are not one polygon (their boxes are written)" in out
    assert "YOLO does not keep 1 boxes beside polygons (their corners are written, which are read as masks)" in out
    # YOLO's programs read all lines of a file as points if one has more than six fields, also those of boxes.
    texts = {file.stem: file.read_text() for file in (tmp_path / "yolo").rglob("*.txt")}
    files = {stem: [len(line.split()) for line in text.splitlines()] for stem, text in texts.items()}
    assert files == {"z": [7, 9], "z_2": [5], "m.x": []}
    records, _ = read(tmp_path / "yolo", "yolo", "train")
    polygon, corners, box = (a for r in records for a in r["annotations"])
    assert polygon["segmentation"] == [pytest.approx(POLYGON[0], abs=1e-6)]
    assert box_of(corners) == pytest.approx((10.25, 10.125, 30.75, 40.25), abs=1e-6)
    assert "segmentation" in corners and "segmentation" not in box
    assert convert(tmp_path / "yolo", "--to", "coco", tmp_path / "back") == 0
    content = json.loads((tmp_path / "back/annotations/train.json").read_text())
    areas = [a["area"] for a in content["annotations"] if "segmentation" in a]
    assert areas == pytest.approx([20.5 * 30.25 / 2, 20.5 * 30.125])


def test_parts_and_links(yolo_root: Path, tmp_path: Path, capsys: Any) -> None:
    assert convert(yolo_root, "--to", "coco", tmp_path / "coco", "--link") == 0
    odd = tmp_path / "a, b: #c}"
    capsys.readouterr()
    assert convert(yolo_root, "--to", "yolo", odd) == 0
    entries = yaml.safe_load(capsys.readouterr().out.partition("use it with\n")[2])["DATASETS"]["CUSTOM"]
    assert entries == {f"my_{part}": {"ANNOTATIONS": str(odd), "SPLIT": part} for part in ("train", "val")}
    assert (tmp_path / "coco/images/val/c.jpg").is_symlink()
    assert convert(tmp_path / "coco", "--to", "voc", tmp_path / "voc", "--split", "val") == 0
    (image,) = (tmp_path / "voc/JPEGImages").iterdir()
    assert image.name == "c.jpg" and not image.is_symlink()
    assert convert(tmp_path / "coco", "--to", "yolo", tmp_path / "yolo2") == 0
    for split in ("train", "val"):
        assert summary(read(tmp_path / "yolo2", "yolo", split)[0], 6) == summary(read(yolo_root, "yolo", split)[0], 6)
    said = capsys.readouterr().out
    assert "my_train" in said and "is written as" not in said


@pytest.mark.parametrize("target", ["coco", "voc", "yolo"])
def test_names_that_files_cannot_hold(yolo_root: Path, target: str, tmp_path: Path, capsys: Any) -> None:
    for folder, ending in (("images", "jpg"), ("labels", "txt")):
        (yolo_root / folder / f"train/a.{ending}").rename(yolo_root / folder / f"train/a\udce9\n.{ending}")
    assert convert(yolo_root, "--to", target, tmp_path / "out", "--split", "train") == 0, capsys.readouterr().err
    records, _ = read(tmp_path / "out", target, "train")
    assert [Path(r["file_name"]).name for r in records] == ["a__.jpg", "b.jpg"]
    assert all(len(r["annotations"]) == 2 for r in records)
    assert "does not keep 1 names of images (control characters and what is not UTF-8 become _)" in (
        capsys.readouterr().out
    )


def test_a_part_with_another_name_is_said(voc_root: Path, tmp_path: Path, capsys: Any) -> None:
    for target in ("yolo", "coco"):
        assert convert(voc_root, "--to", target, tmp_path / target, "--split", "all") == 0
    said = capsys.readouterr().out
    assert (
        said.count("YOLO has no part 'all', which is written as the part 'train'") == 1 == said.count("is written as")
    )


@pytest.mark.parametrize(
    ("lists", "split", "written", "said"),
    [
        ({"trainval": "abc", "test": "b"}, [], ["test", "trainval"], ""),
        ({"train": "a", "val": "b", "trainval": "ab"}, [], ["train", "val"], ""),
        ({"train": "a", "val": "b", "tiny": "b"}, [], ["train", "val"], "lists are not converted: tiny; name the"),
        ({"trainval": "ab", "small_trainval": "a"}, ["small_trainval"], ["small_trainval"], ""),
    ],
)
def test_lists_of_voc(
    voc_root: Path, lists: dict[str, str], split: list[str], written: list[str], said: str, tmp_path: Path, caplog: Any
) -> None:
    """No image is left out in silence, and none is taken twice."""
    folder = voc_root / "ImageSets/Main"
    (folder / "all.txt").unlink()
    for name, ids in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(ids))
    assert convert(voc_root, "--to", "coco", tmp_path / "out", *(["--split", *split] if split else [])) == 0
    assert sorted(path.stem for path in (tmp_path / "out/annotations").iterdir()) == written
    assert [r.getMessage() for r in caplog.records] == [] if not said else said in caplog.text


def test_several_files_in_a_folder(coco_set: Any, cvat_file: Path, tmp_path: Path, capsys: Any) -> None:
    coco_set.json.rename(coco_set.images / "instances_val.json")
    (coco_set.images / "train.json").write_text((coco_set.images / "instances_val.json").read_text())
    assert convert(coco_set.images, "--to", "coco", tmp_path / "both") == 0
    assert sorted(path.name for path in (tmp_path / "both/annotations").iterdir()) == ["train.json", "val.json"]
    (coco_set.images / "train.json").rename(coco_set.images / "val.json")
    assert convert(coco_set.images, "--to", "coco", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert re.search(r"/instances_val\.json and .*/val\.json are both the part 'val'; rename one of them", error), error
    cvat_file.with_name("more.xml").write_text(cvat_file.read_text())
    assert convert(cvat_file.parent, "--to", "coco", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert re.search(r"expected one data set, found .*annotations\.xml, .*more\.xml; name one of them", error), error


@pytest.mark.parametrize("fixture", ["labelme_root", "cvat_file", "lvis_file", "voc_root"])
@pytest.mark.parametrize("target", ["coco", "voc", "yolo"])
def test_every_format_converts_to_every_other(
    fixture: str, target: str, request: Any, tmp_path: Path, capsys: Any
) -> None:
    source = request.getfixturevalue(fixture)
    split = {"voc_root": ["--split", "all"], "cvat_file": ["--split", "val"]}.get(fixture, [])
    assert convert(source, "--to", target, tmp_path / "out", *split) == 0, capsys.readouterr().err
    rows = {line[:20].strip(): line.split()[-2:] for line in capsys.readouterr().out.splitlines()}
    assert rows["images"][0] == rows["images"][1] and rows["objects"][0] == rows["objects"][1] != "0"
    if fixture == "voc_root":
        assert rows["difficult objects"] == (["3", "3"] if target == "voc" else ["3", "0"])
    if fixture == "lvis_file" and target == "coco":
        (file,) = (tmp_path / "out/annotations").iterdir()
        assert json.loads(file.read_text())["images"][0]["neg_category_ids"] == [5]


def test_images_without_annotations(coco_set: Any, tmp_path: Path, capsys: Any) -> None:
    del coco_set.content["annotations"]
    coco_set.write()
    assert convert(coco_set.json, "--to", "voc", tmp_path / "voc") == 2
    assert "have no annotations, which Pascal VOC cannot tell from no objects" in capsys.readouterr().err
    for target, split in (("coco", "instances"), ("yolo", "train")):
        assert convert(coco_set.json, "--to", target, tmp_path / target) == 0
        assert all("annotations" not in r for r in read(tmp_path / target, target, split)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "coco", "yolo"], "yolo: expected the name of a new folder; there is something of this name already"),
        (["--to", "coco", "out", "--split", "vla"], "--split: .*yolo has no part 'vla'; did you mean 'val'"),
        (
            ["--to", "coco", "out", "--classes", "a"],
            "--classes: files in the format YOLO list their classes themselves",
        ),
        (["--to", "coco", "out", "--masks"], "--masks is for --to yolo"),
        (["--to", "coco", "out", "--format", "voc"], r"Annotations: folder of the VOC annotations does not exist"),
    ],
)
def test_mistakes(
    yolo_root: Path, arguments: list[str], message: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert convert("yolo", *arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


def test_after_an_error_nothing_is_left(rich_coco: Path, tmp_path: Path, capsys: Any) -> None:
    (rich_coco.parent / "images/z.jpg").unlink()
    before = sorted(tmp_path.rglob("*"))
    assert convert(rich_coco, "--to", "yolo", tmp_path / "a/b", "--images", rich_coco.parent / "images") == 2
    assert "z.jpg: image file does not exist (1 of 3 images is missing)" in capsys.readouterr().err
    (rich_coco.parent / "images/z.jpg").mkdir()  # found when it is copied
    assert convert(rich_coco, "--to", "yolo", tmp_path / "b", "--images", rich_coco.parent / "images") == 2
    (rich_coco.parent / "images/z.jpg").rmdir()
    assert sorted(tmp_path.rglob("*")) == before


def test_hidden_images_are_shown(rich_coco: Path, tmp_path: Path, capsys: Any) -> None:
    """The reader leaves hidden files out, so that such images would be lost."""
    content = json.loads(rich_coco.read_text())
    content["images"][0]["file_name"] = ".z.jpg"
    (rich_coco.parent / "images/z.jpg").rename(rich_coco.parent / "images/.z.jpg")
    rich_coco.write_text(json.dumps(content))
    assert convert(rich_coco, "--to", "yolo", tmp_path / "out") == 0
    assert "YOLO does not keep 1 points at the beginning of names of images" in capsys.readouterr().out
    assert len(list((tmp_path / "out/images").rglob("[!.]*.*"))) == len(content["images"])


def test_an_image_that_cannot_be_read_is_named(
    rich_coco: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, opened = rich_coco.parent / "images/z.jpg", Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path == source and args == ("rb",):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr("sn2fpn.data.formats.writers.Path.open", refuse)
    assert convert(rich_coco, "--to", "voc", tmp_path / "out") == 2
    assert f"{source}: cannot be read: Permission denied" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_program_explains_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "sn2fpn.data.convert", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--to" in done.stdout


_BOX = st.tuples(*[st.floats(0, 1, width=32)] * 4)
_OBJECTS = st.lists(st.tuples(st.integers(0, 2), _BOX, st.booleans()), max_size=4)


@given(images=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300), _OBJECTS), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_round_trips_keep_boxes(images: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("trip")
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i, "name": name} for i, name in ((4, "c"), (2, "a"), (9, "b"))]
    for i, (height, width, objects) in enumerate(images):
        Image.new("L", (width, height)).save(root / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
        for c, (x1, y1, x2, y2), crowd in objects:
            box = [min(x1, x2) * width, min(y1, y2) * height, abs(x2 - x1) * width, abs(y2 - y1) * height]
            if min(box[2:]) > 0.01:
                found = {"image_id": i, "category_id": (4, 2, 9)[c], "bbox": box, "area": 1, "iscrowd": int(crowd)}
                content["annotations"].append({"id": len(content["annotations"]), **found})
    (root / "train.json").write_text(json.dumps(content))
    before = load_coco_json(root / "train.json", root)
    kept = [r | {"annotations": [a for a in r["annotations"] if not a["iscrowd"]]} for r in before]
    last, formats = root / "train.json", ("coco", "yolo", "voc", "coco")
    for i, target in enumerate(formats):
        assert convert(last, "--to", target, root / str(i), "--link") == 0
        last = root / str(i)
        after, names = read(last, target, "train")
        assert names == ["a", "c", "b"]
        for a, b in zip(before if i == 0 else kept, after, strict=True):
            assert [x["category_id"] for x in a["annotations"]] == [x["category_id"] for x in b["annotations"]]
            for x, y in zip(a["annotations"], b["annotations"]):
                np.testing.assert_allclose(box_of(y), box_of(x), atol=(1e-12, 1e-6, 2e-4, 2e-4)[i])
