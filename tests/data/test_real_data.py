"""Tests with real photographs: counts, and equality with Detectron2 if it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sn2fpn.config import get_cfg
from sn2fpn.data import DatasetCatalog, MetadataCatalog, build_mapper, get_dataset_dicts

COUNTS = {  # data set: folder, images, boxes, images with boxes to train on
    "coco_2017_train": ("coco128", 96, 717, 94),
    "coco_2017_val": ("coco128", 32, 212, 32),
    "voc_2007_train": ("voc_sample", 12, 83, 12),
    "voc_2007_val": ("voc_sample", 12, 31, 12),
    "voc_2007_trainval": ("voc_sample", 24, 114, 24),
    "voc_2007_test": ("voc_sample", 16, 82, 16),
    "voc_2012_train": ("voc_sample", 8, 49, 8),
    "voc_2012_val": ("voc_sample", 8, 33, 8),
    "voc_2012_trainval": ("voc_sample", 16, 82, 16),
}
DIFFICULT = {"voc_2007_trainval": 27, "voc_2007_test": 12, "voc_2012_trainval": 19}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(shared_data: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    folder, images, boxes, filtered = COUNTS[name]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data / folder))
    records = get_dataset_dicts(name)
    assert (len(records), sum(len(r["annotations"]) for r in records)) == (images, boxes)
    assert len(get_dataset_dicts(name, filter_empty=True)) == filtered
    assert len(MetadataCatalog.get(name).thing_classes) == (80 if name.startswith("coco") else 20)
    if name in DIFFICULT:
        assert sum(a["difficult"] for r in records for a in r["annotations"]) == DIFFICULT[name]
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.detectron2
@pytest.mark.parametrize("name", ["coco_2017_train", "coco_2017_val", "voc_2007_trainval", "voc_2012_val"])
def test_same_as_detectron2(shared_data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.config import get_cfg as theirs_cfg
    from detectron2.data import DatasetMapper
    from detectron2.data import MetadataCatalog as TheirMetadata
    from detectron2.data.datasets import load_coco_json, load_voc_instances

    root = shared_data / COUNTS[name][0]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    ours = DatasetCatalog.get(name)
    meta = MetadataCatalog.get(name)
    if name.startswith("coco"):
        theirs = load_coco_json(meta.json_file, meta.image_root, "compare_" + name)
        assert TheirMetadata.get("compare_" + name).thing_classes == meta.thing_classes
    else:
        theirs = load_voc_instances(meta.dirname, meta.split, meta.thing_classes)
    extra = ("area", "difficult")  # additional keys for our evaluators
    plain = [
        {**r, "annotations": [{k: v for k, v in a.items() if k not in extra} for a in r["annotations"]]} for r in ours
    ]
    assert plain == theirs
    mapper, their_mapper = build_mapper(get_cfg(), is_train=False), DatasetMapper(theirs_cfg(), is_train=False)
    for record, their_record in list(zip(ours, theirs))[:8]:
        found, expected = mapper(record, np.random.default_rng(0)), their_mapper(their_record)
        assert torch.equal(found.pop("image"), expected.pop("image"))
        assert found == expected
