"""Tests of the reading of LVIS files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.data import MetadataCatalog, register_custom
from sn2fpn.errors import UserError

Read = Callable[..., list[dict[str, Any]]]


def test_keys_of_lvis_are_kept(lvis_file: Path, read: Read, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        records = read(lvis_file, FORMAT="lvis", IMAGES=str(lvis_file.parent))
    assert [(r["neg_category_ids"], r["not_exhaustive_category_ids"]) for r in records] == [([5], [9])] * 2
    assert [r["file_name"] for r in records] == [str(lvis_file.parent / "val2017" / f"{n}.jpg") for n in "ab"]
    metadata = MetadataCatalog.get("own")
    assert metadata.thing_dataset_id_to_contiguous_id == {5: 0, 9: 1} and metadata.evaluator_type == "coco"
    assert metadata.get("json_file") is None  # COCO's own tools could not read it: its annotations have no iscrowd
    assert "evaluated by COCO's metric" in caplog.text


def test_what_is_refused(lvis_file: Path, read: Read, coco_set: Any) -> None:
    with pytest.raises(UserError, match="no image has 'neg_category_ids', which LVIS files have; use FORMAT coco"):
        read(coco_set.json, FORMAT="lvis")
    (lvis_file.parent / "val2017").rename(lvis_file.parent / "pictures")
    with pytest.raises(UserError, match=r"own\): IMAGES: expected the folder of the images of .*lvis_v1_val\.json"):
        read(lvis_file)
    content = json.loads(lvis_file.read_text())
    content["images"][1]["coco_url"] = "http://x/../../../etc/../passwd"
    lvis_file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"image 2: the name '\.\./passwd' leads outside"):
        read(lvis_file, IMAGES=str(lvis_file.parent))
    with pytest.raises(UserError, match="JSON and ANNOTATIONS are the same key"):
        register_custom([{"NAME": "two", "FORMAT": "lvis", "JSON": "a", "ANNOTATIONS": "a"}])
