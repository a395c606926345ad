"""Tests of the corpus of broken inputs: the readers treat every case as its description demands."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sn2fpn.config import get_cfg
from sn2fpn.data import VOC_CLASSES, DatasetMapper, load_coco_json, load_voc_instances
from sn2fpn.data.loader import build_train_loader
from sn2fpn.data.mapper import build_mapper
from sn2fpn.errors import UserError

CASES = [
    "truncated_jpeg",
    "zero_byte_jpeg",
    "png_named_jpg",
    "gray_jpeg",
    "cmyk_jpeg",
    "rgba_png",
    "gray16_png",
    "exif_orientation_6",
    "one_pixel",
    "very_wide",
    "truncated_json",
    "missing_image_id",
    "unknown_category",
    "bbox_negative_width",
    "bbox_zero_area",
    "bbox_null",
    "bbox_outside_image",
    "duplicate_annotation_ids",
    "duplicate_image_ids",
    "missing_image_file",
    "size_disagrees",
    "rle_malformed",
    "polygon_too_short",
    "empty_annotations",
    "crowd_boxes",
    "not_well_formed",
    "missing_bndbox",
    "inverted_box",
    "unknown_class",
    "float_coordinates",
    "missing_size",
    "missing_xml",
    "blank_lines",
    "entity_bomb",
]


def load(bad: Path, case: dict[str, Any]) -> list[dict[str, Any]]:
    if "split" in case:
        return load_voc_instances(bad / "voc" / "VOC2007", case["split"], VOC_CLASSES)
    return load_coco_json(bad / case["files"][0], bad / case["image_root"])


@pytest.mark.parametrize("name", CASES)
def test_case(shared_data: Path, name: str, caplog: Any) -> None:
    bad = shared_data / "bad"
    case = {c["case"]: c for c in json.loads((bad / "cases.json").read_text())}[name]
    mapper = build_mapper(get_cfg(), is_train=True)
    try:
        records = load(bad, case)
        outputs = [mapper(r, np.random.default_rng(0)) for r in records]
    except UserError as e:
        assert case["expect"] != "accept"
        named = [Path(f).name for f in case["files"]] + ["not_there.jpg", "000107.xml", "good_2.jpg"]
        assert any(n in str(e) for n in named), e
        return
    assert case["expect"] != "reject"
    counts = {"images": len(records), "annotations": sum(len(r["annotations"]) for r in records)}
    warned = any(r.levelno >= logging.WARNING for r in caplog.records)
    if name in ("rle_malformed", "polygon_too_short"):
        assert counts == {"images": 3, "annotations": 6} and warned
    elif "if_accepted" in case:
        assert counts == case["if_accepted"]
    else:
        assert counts == case["if_skipped"] and warned
    for output in outputs:
        boxes = output["instances"].gt_boxes
        assert boxes.tensor.isfinite().all() and boxes.nonempty().all() and min(output["image"].shape) >= 1


def test_every_case_of_the_corpus_is_tested(shared_data: Path) -> None:
    cases = json.loads((shared_data / "bad" / "cases.json").read_text())
    assert {c["case"] for c in cases if c["files"][0].startswith(("coco/", "voc/"))} == set(CASES)


def test_pictures_are_right(shared_data: Path) -> None:
    images = shared_data / "bad" / "images"
    mapper = DatasetMapper([], "BGR", with_targets=False)

    def pixels(name: str) -> np.ndarray:
        record = {"file_name": str(images / name), "height": 213, "width": 320}
        return mapper(record, np.random.default_rng(0))["image"].float().numpy()

    good = pixels("good_2.jpg")
    assert abs(pixels("gray16.png").mean() - 117.85) < 0.1
    assert np.array_equal(pixels("rgba.png"), good)
    for name in ("cmyk.jpg", "exif6.jpg", "gray.jpg"):
        assert np.abs(pixels(name) - good).mean() < 12, name


def test_float_box(shared_data: Path) -> None:
    records = load_voc_instances(shared_data / "bad" / "voc" / "VOC2007", "float_coordinates", VOC_CLASSES)
    boxes = [a["bbox"] for r in records for a in r["annotations"]]
    assert any(np.allclose(b, [44.70, 19.5, 150.25, 99.0], atol=1e-9) for b in boxes)


def test_missing_picture_is_found_before_training(shared_data: Path) -> None:
    bad = shared_data / "bad"
    records = load_coco_json(bad / "coco" / "missing_image_file.json", bad / "images")
    with pytest.raises(UserError, match=r"not_there\.jpg.*1 of 3"):
        build_train_loader(get_cfg(), dataset_dicts=records)
