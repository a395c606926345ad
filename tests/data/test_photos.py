"""Tests of the data set `photos`: how it is made from COCO val2017, and its agreement with a copy of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from sn2fpn.data import DatasetCatalog
from sn2fpn.data.fingerprint import dataset_fingerprint
from sn2fpn.data.photos import SPLITS, main, split_ids

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 2, "name": "bicycle", "supercategory": "vehicle"},
    {"id": 5, "name": "airplane", "supercategory": "vehicle"},
]
COPY = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A folder like COCO val2017's with 40 images of 640 x 425 pixels, of which all but the last show a person."""
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    crowd = np.zeros((425, 640), np.uint8, order="F")
    crowd[100:200, 300:500] = 1
    for i in range(1, 41):
        file_name = f"{i:012d}.jpg"
        Image.fromarray(np.full((425, 640, 3), 5 * i, np.uint8)).save(root / "val2017" / file_name)
        images.append({"id": i, "file_name": file_name, "width": 640, "height": 425})
        polygon = [10.5, 20.25, 110.5, 20.25, 110.5, 70.25]
        base = {"image_id": i, "iscrowd": 0, "area": 2500.0, "bbox": [10.5, 20.25, 100.0, 50.0]}
        for category in (1, 5) if i < 40 else (2,):
            annotations.append(base | {"id": len(annotations), "category_id": category, "segmentation": [polygon]})
    counts = _uncompressed(crowd)
    annotations.append(
        {"id": 999, "image_id": 1, "iscrowd": 1, "area": 20000.0, "bbox": [300, 100, 200, 100], "category_id": 1}
        | {"segmentation": {"size": [425, 640], "counts": counts}}
    )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def _uncompressed(mask: np.ndarray) -> list[int]:
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *changes, flat.size]).tolist()


def test_made_from_coco(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "data" / "photos"
    assert main([str(coco), "--output", str(output)]) == 0
    monkeypatch.setenv("DETECTRON2_DATASETS", str(output.parent))
    printed = capsys.readouterr().out
    sizes = {split: len(DatasetCatalog.get(f"photos1_{split}")) for split in SPLITS}
    assert sizes == {"train": 26, "tune": 3, "test": 10}  # 39 with a person, in the proportions of the whole set
    every = [r for split in SPLITS for r in DatasetCatalog.get(f"photos12_{split}")]
    assert {(r["width"], r["height"]) for r in every} == {(320, 212)}
    with Image.open(every[0]["file_name"]) as image:
        assert image.size == (320, 212)
    person, airplane = next(r for r in every if r["image_id"] == 2)["annotations"]
    assert (person["category_id"], airplane["category_id"]) == (0, 1)  # 'vehicle' is the second supercategory
    y = 212 / 425
    np.testing.assert_allclose(person["bbox"], [5.25, 20.25 * y, 50.0, 50 * y], atol=1e-3)
    np.testing.assert_allclose(
        person["segmentation"][0], [5.25, 20.25 * y, 55.25, 20.25 * y, 55.25, 70.25 * y], atol=0.01
    )
    crowd = next(r for r in every if r["image_id"] == 1)["annotations"][2]
    rows, columns = np.nonzero(mask_api.decode(crowd["segmentation"]))
    assert crowd["iscrowd"] and (columns.min(), columns.max()) == (150, 249)
    assert abs(rows.min() - 100 * y) <= 1 and abs(rows.max() + 1 - 200 * y) <= 1
    for split in SPLITS:
        assert f"photos1_{split}: fingerprint {dataset_fingerprint(DatasetCatalog.get(f'photos1_{split}'))}" in printed


def test_made_again_it_is_the_same(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(coco), "--output", str(tmp_path / "a")]) == 0
    first = capsys.readouterr().out.splitlines()[:-1]
    assert main([str(coco), "--output", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == first and len(first) == 12


def test_not_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--output", str(tmp_path / "a")]) == 2
    assert "instances_val2017.json does not exist" in capsys.readouterr().err
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    assert main([str(tmp_path), "--output", str(tmp_path / "a")]) == 2
    assert "expected COCO's instances of val2017" in capsys.readouterr().err


def test_fingerprint_tells_data_sets_apart() -> None:
    record = {"image_id": 3, "height": 4, "width": 5, "file_name": "a.jpg"}
    box = {"bbox": [0.0, 1.0, 2.0, 3.0], "bbox_mode": 1, "category_id": 0}
    plain = dataset_fingerprint([record | {"annotations": [box]}])
    assert plain == dataset_fingerprint([record | {"file_name": "b.jpg", "annotations": [box | {"iscrowd": 0}]}])
    others = [box | {"bbox": [0.0, 1.0, 2.0, 3.01]}, box | {"category_id": 1}, box | {"iscrowd": 1}]
    assert len({plain, *(dataset_fingerprint([record | {"annotations": [o]}]) for o in others)}) == 4
    assert dataset_fingerprint([record]) != plain


@pytest.mark.skipif(not COPY.is_dir(), reason="the shared copy of the photographs is not there")
def test_copy_has_the_same_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(COPY))
    ids = {split: [r["image_id"] for r in DatasetCatalog.get(f"photos20_{split}")] for split in SPLITS}
    assert {split: len(part) for split, part in ids.items()} == {"train": 1800, "tune": 200, "test": 693}
    assert split_ids(dict.fromkeys(i for part in ids.values() for i in part)) == ids
