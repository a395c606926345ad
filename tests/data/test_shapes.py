"""Tests of the synthetic data set: it is deterministic and valid, has all sizes, and is written once."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_api

from sn2fpn.data import MetadataCatalog, get_dataset_dicts
from sn2fpn.data import shapes as shapes_module
from sn2fpn.data.shapes import CLASSES, draw_image, ensure_shapes, write_shapes
from sn2fpn.data.statistics import SIZE_BINS
from sn2fpn.errors import UserError

TINY = {"train": (4, 1), "val": (2, 2)}


def digest(root: Path) -> dict[str, str]:
    files = [p for p in root.rglob("*") if p.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_deterministic(tmp_path: Path) -> None:
    for name in "ab":
        write_shapes(tmp_path / name, TINY)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert len(digest(tmp_path / "a")) == 4 + 2 + 2


def test_objects_fit_their_annotations() -> None:
    sizes, classes, shapes = [], set(), set()
    for seed in range(60):
        image, objects = draw_image(np.random.default_rng([9, seed]))
        height, width = image.shape[:2]
        shapes.add(height < width)
        assert image.dtype == np.uint8 and min(height, width) >= 192 and max(height, width) <= 288
        for o in objects:
            x, y, w, h = o["bbox"]
            points = np.concatenate([np.reshape(p, (-1, 2)) for p in o["segmentation"]])
            assert points.min(0).tolist() == [x, y] and points.max(0) == pytest.approx([x + w, y + h], abs=0.011)
            assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
            pixels = mask_api.merge(mask_api.frPyObjects(o["segmentation"], height, width))
            assert mask_api.area(pixels) == pytest.approx(o["area"], rel=0.2, abs=12)
            assert o["area"] > 60
            sizes.append(o["area"])
            classes.add(o["category_id"])
    assert shapes == {True, False} and classes == set(range(1, len(CLASSES) + 1))
    for low, high in SIZE_BINS.values():
        assert sum(low <= s < high for s in sizes) > 5


def test_no_hole_is_counted_as_ring() -> None:
    ring = shapes_module._annotate(np.hypot(*np.mgrid[-150:150, -150:150]) // 60 == 1, CLASSES.index("ring"))
    mask = mask_api.decode(mask_api.merge(mask_api.frPyObjects(ring["segmentation"], 100, 100)))
    assert mask[50, 50] == 0 and mask[50, 20] == 1 and len(ring["segmentation"]) == 1


def test_read_through_the_catalog(tiny_shapes: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tiny_shapes))
    records = get_dataset_dicts("shapes_train", filter_empty=True)
    assert len(records) == 12 and all("segmentation" in a for r in records for a in r["annotations"])
    assert MetadataCatalog.get("shapes_train").thing_classes == list(CLASSES)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def _ensure(root: Path) -> None:
    shapes_module.SPLITS.update(TINY)
    ensure_shapes(root)


@pytest.mark.slow
def test_processes_that_start_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ensure, args=(tmp_path / "sub" / "shapes",)) for _ in range(3)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["shapes"]  # no temporary folder is left


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="DETECTRON2_DATASETS"):
        ensure_shapes(tmp_path / "file" / "shapes")
