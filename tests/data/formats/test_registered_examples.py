"""Tests of data sets that are Python objects, with stand-ins for those of Hugging Face and with real ones."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sn2fpn.data import DatasetCatalog, MetadataCatalog, read_image, register_examples
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.structures import BoxMode

pytestmark = pytest.mark.usefixtures("registered")
PIXELS = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
OBJECTS = {"bbox": [[8, 6, 32, 24], [16.0, 12.0, 48.0, 42.0]], "category": [0, 1], "id": [4, 5]}


def read(examples: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
    if "own" in DatasetCatalog:
        DatasetCatalog.remove("own")
    register_examples("own", examples, folder, **options)
    return DatasetCatalog.get("own")


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


def test_images_of_all_kinds_have_the_same_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with Image.open(tmp_path / "a.png") as opened, Image.open(tmp_path / "a.png") as small:
        small.thumbnail((40, 40))  # keeps the name of the file, whose image is larger
        opened.load()
    images = [
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        opened,
        {"path": str(tmp_path / "a.png"), "bytes": None},
        {"path": "not/here.png", "bytes": png()},
        Image.fromarray(PIXELS),
        small,
    ]
    examples = [{"image": image, "objects": OBJECTS, "image_id": 10 + i} for i, image in enumerate(images)]
    records = read(examples, tmp_path / "out", class_names=["dog", "cat"])
    assert [r["image_id"] for r in records] == list(range(10, 17))
    assert all((read_image(r["file_name"], "RGB") == PIXELS).all() for r in records[:6])
    assert [Path(r["file_name"]).parent for r in records] == [tmp_path] * 4 + [tmp_path / "out"] * 3
    assert (records[6]["height"], records[6]["width"]) == (30, 40)
    first = records[0]["annotations"]
    assert [a["bbox"] for a in first] == [[8, 6, 40, 30], [16, 12, 64, 54]]
    assert [a["category_id"] for a in first] == [0, 1] and first[0]["bbox_mode"] == BoxMode.XYXY_ABS
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert read(list(examples), tmp_path / "out", class_names=["dog", "cat"]) == records
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == written and len(written) == 3


def test_bytes_are_the_image_beside_the_name_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of Hugging Face give the name that a file had in their archive."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("0001.png")
    example = {"image": {"path": "0001.png", "bytes": png()}, "objects": OBJECTS}
    (record,) = read([example], tmp_path / "out", class_names=["dog", "cat"])
    assert (read_image(record["file_name"], "RGB") == PIXELS).all()


def test_images_with_palettes(tmp_path: Path) -> None:
    """Equal indices with other palettes are other pixels."""
    images = [Image.new("P", (80, 60), 1) for _ in range(2)]
    for image, colour in zip(images, ((200, 0, 0), (0, 0, 200))):
        image.putpalette([0, 0, 0, *colour])
    records = read([{"image": image, "objects": OBJECTS} for image in images], tmp_path, class_names=["dog", "cat"])
    assert [read_image(r["file_name"], "RGB")[0, 0].tolist() for r in records] == [[200, 0, 0], [0, 0, 200]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_opened_images_have_the_pixels_that_they_have_now(tmp_path: Path, suffix: str) -> None:
    """Not those of their files if they were changed in place, or not turned, as their boxes may not be, either."""
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    with Image.open(path) as closed:
        pass
    changed, touched = Image.open(path), Image.open(path)
    changed.paste((1, 2, 3), (0, 0, 9, 9))
    touched.load()
    examples = [{"image": image, "objects": OBJECTS} for image in (changed, touched, closed)]
    records = read(examples, tmp_path / "out", class_names=["dog", "cat"])
    assert [Path(r["file_name"]).parent for r in records] == [tmp_path / "out", tmp_path, tmp_path]
    assert (read_image(records[0]["file_name"], "RGB") == np.asarray(changed)).all()


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 6])
def test_opened_images_with_an_orientation(tmp_path: Path, orientation: int, loaded: bool) -> None:
    exif, square = Image.Exif(), PIXELS[:60, :60]
    exif[0x0112] = orientation
    Image.fromarray(square).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        if loaded:
            image.load()
        (record,) = read([{"image": image, "objects": OBJECTS}], tmp_path / "out", class_names=["dog", "cat"])
    assert (read_image(record["file_name"], "RGB") == square).all()
    assert (Path(record["file_name"]).parent == tmp_path) == (orientation == 1)


def test_images_in_colours_that_png_lacks(tmp_path: Path) -> None:
    image = Image.new("CMYK", (48, 36), (0, 255, 255, 0))
    (record,) = read([{"image": image, "objects": OBJECTS}], tmp_path / "out", class_names=["dog", "cat"])
    assert (read_image(record["file_name"], "RGB") == np.array(image.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("box_format", "box"), [("xywh", [8, 6, 32, 24]), ("xyxy", [8, 6, 40, 30]), ("cxcywh", [24, 18, 32, 24])]
)
def test_box_formats_and_forms_of_objects(tmp_path: Path, box_format: str, box: list[int]) -> None:
    rows = [{"bbox": np.array(box), "category": "dog", "iscrowd": np.bool_(True)}, {"bbox": box, "category": "ant"}]
    columns = {"bbox": np.array([box, box]), "category": ["dog", "ant"], "iscrowd": [1, 0], "empty": [], "more": 3}
    examples = [{"image": {"bytes": png()}, "objects": form} for form in (rows, columns)]
    records = read(examples, tmp_path, box_format=box_format)
    assert MetadataCatalog.get("own").thing_classes == ["ant", "dog"]
    for record in records:
        assert [a["bbox"] for a in record["annotations"]] == [[8, 6, 40, 30]] * 2
        assert [(a["category_id"], a.get("iscrowd", 0)) for a in record["annotations"]] == [(1, 1), (0, 0)]


def test_classes_as_decimals(tmp_path: Path) -> None:
    """Tables of pandas turn whole numbers into decimals where a value is missing."""
    objects = {**OBJECTS, "category": np.array([0.0, 1.0])}
    (record,) = read([{"image": {"bytes": png()}, "objects": objects}], tmp_path, class_names=["dog", "cat"])
    assert [a["category_id"] for a in record["annotations"]] == [0, 1]


def test_class_names_that_are_given(tmp_path: Path) -> None:
    example = {"image": {"bytes": png()}, "objects": OBJECTS}
    assert len(read([example], tmp_path, class_names=[7, "cat"])[0]["annotations"]) == 2
    assert MetadataCatalog.get("own").thing_classes == ["7", "cat"]
    for names, message in (
        ("dog", "class_names: expected a list of names, found 'dog'"),
        (["dog", "dog"], "class_names: expected different names"),
        (["dog", None], "class_names: class 1 is None, expected a text"),
    ):
        with pytest.raises(UserError, match=message):
            read([example], tmp_path, class_names=names)


def test_class_names_from_features_of_both_forms(tmp_path: Path) -> None:
    label = SimpleNamespace(names=["cup", "pen"])
    for objects in (
        SimpleNamespace(feature={"bbox": None, "category": label}),  # a list of objects
        {"bbox": None, "category": SimpleNamespace(feature=label)},  # an object of lists
    ):
        examples = type("Examples", (list,), {"features": {"objects": objects}})([{"image": {"bytes": png()}}])
        assert "annotations" not in read(examples, tmp_path)[0]
        assert MetadataCatalog.get("own").thing_classes == ["cup", "pen"]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"bbox": [[8, 6, 0, 24]], "category": [0]}, "has no area"),
        ({"bbox": [[8, 6, 24]], "category": [0]}, "bbox: expected four finite numbers, found [8, 6, 24]"),
        ({"bbox": [[8, 6, 24, None]], "category": [0]}, "bbox: expected four finite numbers, found [8, 6, 24, None]"),
        ({"bbox": [[8, 6, 24, 3]], "category": [2]}, "unknown class 2, expected 0 to 1"),
        ({"bbox": [[8, 6, 24, 3]], "category": [0.5]}, "category: expected a number or a name, found 0.5"),
        ({"bbox": [[8, 6, 24, 3]], "category": [None]}, "category: expected a number or a name, found None"),
        ({"bbox": [[8, 6, 24, 3]], "category": [0], "iscrowd": ["?"]}, "iscrowd is '?', expected 0, 1"),
    ],
)
def test_broken_objects_are_left_out(tmp_path: Path, objects: Any, message: str, caplog: Any) -> None:
    examples = [{"image": {"bytes": png()}, "objects": found} for found in (OBJECTS, objects)]
    assert [len(r["annotations"]) for r in read(examples, tmp_path, class_names=["dog", "cat"])] == [2, 0]
    assert "examples of 'own': example 1, object 0" in caplog.text and message in caplog.text


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"picture": 1}, r"expected a mapping with an 'image' and 'objects', found the keys \['picture'\]"),
        (3, "expected a mapping with an 'image' and 'objects', found int"),
        ({"image": 3}, "image: expected a path, a PIL image, .*, found int"),
        ({"image": {"path": "no.jpg", "bytes": None}}, "image: there is no file 'no.jpg', and no bytes"),
        ({"image": {"bytes": b"text"}}, "image: the bytes are not decodable as an image"),
        ({"image": "no.jpg"}, r"no\.jpg: image file does not exist"),
        ({"image": Image.new("F", (2, 2))}, "image: cannot be written as PNG: "),
        (
            {"image": {"bytes": png()}, "objects": {"bbox": []}},
            r"objects: expected the lists 'bbox' and 'category' .*, found keys \['bbox'\]",
        ),
        (
            {"image": {"bytes": png()}, "objects": {"bbox": [], "category": [1]}},
            "objects: .* of the same length, found lengths {'bbox': 0, 'category': 1}",
        ),
        (
            {"image": {"bytes": png()}, "objects": [{"bbox": []}]},
            "objects: expected mappings with 'bbox' and 'category'",
        ),
        ({"image": {"bytes": png()}, "objects": 3}, "objects: expected mappings with 'bbox' and 'category', found 3"),
    ],
)
def test_broken_examples_are_refused(tmp_path: Path, example: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"examples of 'own': example 0: {message}"):
        read([example], tmp_path, class_names=["dog", "cat"])


def test_what_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="box_format: unknown value 'xyhw'; did you mean 'xywh'"):
        register_examples("own", [], tmp_path, box_format="xyhw")
    with pytest.raises(ArgumentError, match="class_names: expected the class names of data set 'own', found none"):
        read([{"image": {"bytes": png()}, "objects": OBJECTS}], tmp_path)


def test_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Dataset"):  # the folder of this name
        pytest.skip("the library `datasets` is not installed")
    categories = datasets.ClassLabel(names=["dog", "cat"])
    boxes = datasets.Sequence(datasets.Value("float32"), length=4)
    objects = datasets.Sequence({"bbox": boxes, "category": categories})
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    rows = {
        "image": [{"bytes": png(), "path": None}] * 2,
        "objects": [{k: OBJECTS[k] for k in ("bbox", "category")}] * 2,
    }
    data = datasets.Dataset.from_dict(rows, features)
    for examples in (data, data.cast_column("image", datasets.Image(decode=False))):
        records = read(examples, tmp_path / "out")
        assert MetadataCatalog.get("own").thing_classes == ["dog", "cat"]
        assert [a["bbox"] for a in records[1]["annotations"]] == [[8, 6, 40, 30], [16, 12, 64, 54]]
        assert (read_image(records[1]["file_name"], "RGB") == PIXELS).all()


def test_an_image_id_is_given_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    examples = [{"image": str(tmp_path / n), "image_id": 7, "objects": OBJECTS} for n in ("a.png", "b.png")]
    with pytest.raises(UserError, match=r"example 1: both .*a\.png and .*b\.png have the image_id 7; expected an id"):
        read(examples, tmp_path, class_names=["dog", "cat"])
