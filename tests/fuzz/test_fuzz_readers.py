"""Damaged and hostile annotation files: the readers answer with sound data set dicts or a UserError."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from sn2fpn.data import MetadataCatalog, class_histogram, load_coco_json, load_voc_instances
from sn2fpn.data.formats import FORMATS, Source
from sn2fpn.data.formats.voc_files import find_voc_classes
from sn2fpn.data.plausible import find_notes
from sn2fpn.data.problems import collect_problems
from sn2fpn.data.values import clean_name
from sn2fpn.errors import UserError
from sn2fpn.evaluation.ground_truth import coco_ground_truth
from sn2fpn.structures import BoxMode, polygons_to_bitmask

HEIGHT, WIDTH = 60, 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A VOC folder without annotations, whose images COCO files refer to as well; logs are off."""
    root = tmp_path_factory.mktemp("fuzz")
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for i in "123":
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages" / f"{i}.jpg")
    logging.disable()
    yield root
    logging.disable(logging.NOTSET)
    MetadataCatalog.remove("fuzzed")


def check_records(records: list[dict[str, Any]], num_classes: int) -> None:
    for record in records:
        for found in record.get("annotations", ()):
            x1, y1, x2, y2 = BoxMode.convert(found["bbox"], found["bbox_mode"], BoxMode.XYXY_ABS)
            assert np.isfinite([x1, y1, x2, y2]).all() and x2 > x1 and y2 > y1
            assert 0 <= found["category_id"] < num_classes
            assert found.get("iscrowd", 0) in (0, 1) and found.get("difficult", 0) in (0, 1)


# COCO

_NUMBERS = st.one_of(st.integers(-5, 200), st.floats(), st.sampled_from([10**18, 10**400, -(10**400), 1e9, 1e308]))
_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["0", "1", "1.0", "False", "null", "../1.jpg", "/1.jpg", "a\\1.jpg", "\ud800", "x" * 300]),
)
_LISTS = st.one_of(st.lists(_NUMBERS, max_size=9), st.lists(st.lists(_NUMBERS, max_size=9), max_size=3))
_RLE = st.fixed_dictionaries(
    {
        "size": st.sampled_from([[HEIGHT, WIDTH], [WIDTH, HEIGHT], [1e9, 1e9], [], None, [float(HEIGHT), WIDTH]]),
        "counts": st.one_of(
            st.lists(st.integers(0, 4800), max_size=6).map(lambda runs: [*runs, HEIGHT * WIDTH - sum(runs)]),
            st.text(alphabet=st.characters(min_codepoint=48, max_codepoint=112), max_size=12),
            _TEXTS,
            _LISTS,
        ),
    }
)
_VALUES = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS, _LISTS, _RLE, st.dictionaries(_TEXTS, _NUMBERS))
_CHANGES = st.lists(
    st.tuples(st.sampled_from(["images", "annotations", "categories"]), st.integers(0, 5), st.integers(-2, 6), _VALUES),
    min_size=1,
    max_size=4,
)


def _sound_coco() -> dict[str, list[Any]]:
    polygon = [[1, 2, 30, 2, 30, 40]]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (1, 2, 3)],
        "annotations": [
            {
                **{"id": i, "image_id": i % 3 + 1, "category_id": i % 2 + 1, "bbox": [1, 2, 30, 40], "area": 99},
                **{"iscrowd": 0, "segmentation": polygon},
            }
            for i in range(6)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "book"}],
    }


def _damaged(changes: list[tuple[str, int, int, Any]]) -> dict[str, Any]:
    """Replace a part (key -2), an item (key -1) or one value of an item; a None removes the value's key."""
    content: dict[str, Any] = _sound_coco()
    for part, index, key, value in changes:
        items = content.get(part)
        if key == -2 or not isinstance(items, list) or not items:
            content[part] = value
            continue
        item = items[index % len(items)]
        if key == -1 or not isinstance(item, dict) or not item:
            items[index % len(items)] = value
        else:
            name = list(item)[key % len(item)]
            item[name] = value
            if value is None:
                del item[name]
    return content


@given(changes=_CHANGES, collect=st.booleans())
def test_coco_reader(folder: Path, changes: list[tuple[str, int, int, Any]], collect: bool) -> None:
    file = folder / "instances.json"
    file.write_text(json.dumps(_damaged(copy.deepcopy(changes))))
    context: Callable[[], Any] = collect_problems if collect else nullcontext
    try:
        with context():
            records = load_coco_json(file, folder / "JPEGImages", "fuzzed")
    except UserError:
        return
    metadata = MetadataCatalog.get("fuzzed")
    names, own_ids = metadata.thing_classes, sorted(metadata.thing_dataset_id_to_contiguous_id)
    check_records(records, len(names))
    assert all(name == clean_name(name) and name for name in names) and len(set(names)) == len(names)
    assert all(Path(r["file_name"]).is_relative_to(folder / "JPEGImages") for r in records)
    for found in coco_ground_truth(records, own_ids, names)["annotations"]:
        if isinstance(found["segmentation"], dict):
            assert coco_mask.area(found["segmentation"]) <= HEIGHT * WIDTH
        else:
            polygons_to_bitmask([np.array(p, np.float64) for p in found["segmentation"]], HEIGHT, WIDTH)
    class_histogram(records, names), list(find_notes(records, names, 100))


# VOC

_OBJECT = (
    "<object><name>{}</name><difficult>0</difficult>"
    "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>50</ymax></bndbox></object>"
)
_SOUND_XML = (
    f"<annotation><filename>1.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    f"{_OBJECT.format('cat')}{_OBJECT.format('dog')}</annotation>"
)
_INSERTED = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["1e400", "nan", "-1", "9" * 5000, "&#10;", "<object>", "</object>", "<bndbox/>", "<!-- ", "&a;"]),
)
_EDITS = st.lists(
    st.tuples(st.integers(0, len(_SOUND_XML)), st.integers(0, 12), _INSERTED), min_size=1, max_size=4
)  # position, number of characters that are removed, text that is inserted
_LINES = st.lists(
    st.one_of(st.sampled_from([b"1", b"2 -1", b"3", b"../1", b"/1", b"\xff", b"a b", b"1 1"]), st.binary(max_size=6)),
    max_size=4,
)


@given(edits=_EDITS, lines=_LINES, encoding=st.sampled_from(["utf-8", "latin-1", "utf-16"]), collect=st.booleans())
def test_voc_reader(
    folder: Path, edits: list[tuple[int, int, str]], lines: list[bytes], encoding: str, collect: bool
) -> None:
    text = _SOUND_XML
    for start, removed, inserted in edits:
        text = text[:start] + inserted + text[start + removed :]
    for i in "123":
        content = text.encode(encoding, "replace") if i == "1" else _SOUND_XML.encode()
        (folder / "Annotations" / f"{i}.xml").write_bytes(content)
    (folder / "ImageSets" / "Main" / "all.txt").write_bytes(b"\n".join(lines or [b"1", b"2"]))
    context: Callable[[], Any] = collect_problems if collect else nullcontext
    try:
        with context():
            check_records(load_voc_instances(folder, "all", ["cat", "dog"]), 2)
    except UserError:
        pass
    try:
        with context():
            assert all(name == clean_name(name) and name for name in find_voc_classes(folder))
    except UserError:
        pass


# The other formats: edits of sound files, which the readers are given as a whole

_SOUND = {
    "yolo": {
        "data.yaml": "path: .\ntrain: images\nnames: {0: cup, 1: book}\nnc: 2\n",
        "labels/1.txt": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.5\n",
    },
    "labelme": {
        "1.json": '{"imagePath": "images/1.jpg", "imageHeight": 60, "imageWidth": 80, "shapes": ['
        '{"label": "cup", "shape_type": "rectangle", "points": [[1, 2], [30, 40]], "flags": {"difficult": true}}, '
        '{"label": "book", "shape_type": "polygon", "points": [[1, 2], [30, 40], [3, 4]], "group_id": 1}]}'
    },
    "cvat": {
        "a.xml": '<annotations><meta><job><labels><label><name>cup</name></label></labels></job></meta><image id="0" '
        'name="1.jpg" width="80" height="60" subset="train"><box label="cup" xtl="1" ytl="2" xbr="30" ybr="40" '
        'rotation="5"/><polygon label="cup" points="1,2;30,2;30,40" group_id="1"/><mask label="cup" rle="1, 2, 1" '
        'left="3" top="4" width="2" height="2"/></image></annotations>'
    },
}
_FILE_EDITS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 12),
        st.one_of(
            st.text(max_size=6),
            st.sampled_from(["-", "e9", "nan", "inf", "null", "[", "}", '"', "\n", "0 ", "../", "9" * 30, "1e308"]),
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("data_format", _SOUND)
@given(which=st.integers(0, 1), edits=_FILE_EDITS, encoding=st.sampled_from(["utf-8", "utf-16"]), collect=st.booleans())
def test_other_readers(
    folder: Path, data_format: str, which: int, edits: list[tuple[int, int, str]], encoding: str, collect: bool
) -> None:
    root = folder / data_format
    shutil.copytree(folder / "JPEGImages", root / "images", dirs_exist_ok=True)
    for i, (name, text) in enumerate(_SOUND[data_format].items()):
        for start, removed, inserted in edits if i == which % len(_SOUND[data_format]) else ():
            start %= len(text) or 1
            text = text[:start] + inserted + text[start + removed :]
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode(encoding, "replace"))
    path = root / "a.xml" if data_format == "cvat" else root
    context: Callable[[], Any] = collect_problems if collect else nullcontext
    try:
        with context():
            records, metadata = FORMATS[data_format].read(Source("fuzzed", path))
    except UserError:
        return
    check_records(records, len(metadata["thing_classes"]))
    assert all(name == clean_name(name) and name for name in metadata["thing_classes"])
