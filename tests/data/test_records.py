"""Tests of data set dicts as bytes: equal contents, shared memory, and small private memory of the workers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sn2fpn.data import DatasetCatalog, build_train_loader, get_dataset_dicts
from sn2fpn.data.loader import BatchLoader
from sn2fpn.data.records import Records
from sn2fpn.data.selection import keep_masked
from sn2fpn.structures import BoxMode


def image(number: int, masks: int = 0, points: int = 3, **more: Any) -> dict[str, Any]:
    box = {"bbox": [1.0, 2.0, 3.5, 4.0], "bbox_mode": BoxMode.XYWH_ABS, "category_id": number % 3, "iscrowd": 0}
    polygons = np.random.default_rng(number).uniform(0, 90, (3, 2 * points)).tolist()
    annotations = [box | ({"segmentation": [p]} if i < masks else {}) for i, p in enumerate(polygons)]
    return {
        "file_name": f"{number}.jpg",
        "height": 90,
        "width": 100,
        "image_id": number,
        "annotations": annotations,
    } | more


def bare(record: dict[str, Any]) -> dict[str, Any]:
    return record | {
        "annotations": [{k: v for k, v in a.items() if k != "segmentation"} for a in record["annotations"]]
    }


def test_bytes_give_back_what_they_were_made_of() -> None:
    rle = {"size": [90, 100], "counts": b"abc"}
    dicts = [image(0), image(1, masks=2), image(2, masks=3, own={"x": (1, None)}), {"file_name": "a", "image_id": "b"}]
    dicts[2]["annotations"][1]["segmentation"] = rle
    dicts[2]["annotations"][2]["segmentation"] = None
    records = Records.of(dicts)
    assert list(records) == records.to_list() == dicts and len(records) == 4 and records[-1] == dicts[-1]
    assert isinstance(records[1]["annotations"][0]["bbox_mode"], BoxMode)
    assert list(records[1:3]) == dicts[1:3] and list(records.select([2, 0, 2])) == [dicts[2], dicts[0], dicts[2]]
    assert (
        list(records.without_masks()[:3]) == list(Records.of(dicts[:3], with_masks=False)) == list(map(bare, dicts[:3]))
    )
    other = Records.of([image(7), image(8, masks=1)])
    both = Records.joined([records, other])
    assert list(both) == dicts + list(other) and list(both.select([5, 1])) == [other[1], dicts[1]]
    assert list(both.replaced({4: image(9, masks=1)})) == [*dicts, image(9, masks=1), other[1]]
    records[0]["annotations"].clear()  # a copy
    assert records[0] == dicts[0] and Records.of(records) is records
    with pytest.raises(IndexError):
        records[4]
    assert not Records.of([]) and list(Records.joined([Records.of([]), records[:1]])) == dicts[:1]


def test_what_is_left_out_does_not_copy_the_rest() -> None:
    dicts = [image(0, masks=3), image(1, masks=1), image(2, masks=3)]
    records = Records.of(dicts)
    kept = keep_masked(records, "polygon", "the data")
    assert list(kept) == keep_masked(dicts, "polygon", "the data")
    assert [len(r["annotations"]) for r in kept] == [3, 1, 3]
    assert kept._buffers[0] is records._buffers[0] and len(kept._buffers[1]) < len(records._buffers[0]) / 2
    assert keep_masked(records.select([0, 2]), "polygon", "the data")._buffers[0] is records._buffers[0]


def test_loaders_share_the_bytes_of_the_catalog(shapes_cfg: Callable, registered: None) -> None:
    cfg = shapes_cfg()
    of_catalog = DatasetCatalog.read("shapes_train")
    loader = build_train_loader(cfg)
    assert loader._loader.dataset._records._buffers[0] is of_catalog._buffers[0]
    fresh = DatasetCatalog.get("shapes_train")
    fresh[0]["annotations"].clear()  # what a user changes is the user's own
    assert DatasetCatalog.get("shapes_train")[0] == of_catalog[0] != fresh[0]
    own = get_dataset_dicts("shapes_train")
    DatasetCatalog.register("own_list", lambda: own)
    assert DatasetCatalog.get("own_list") is own


def _private_mib(pid: int | str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1024


class _Count:
    """A mapper that reads the whole record."""

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {"n": sum(len(p) for a in record["annotations"] for p in a.get("segmentation", ()))}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
def test_workers_own_a_small_part_of_the_memory_of_the_records() -> None:
    """A process of its own is measured, because workers also come to own what they touch of other tests' memory."""
    words = "import test_records; test_records.check_the_memory_of_workers()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", words], check=True, env=environment)


def check_the_memory_of_workers() -> None:
    dicts = [image(i, masks=3, points=60) for i in range(12_000)]
    records = Records.of(dicts)
    size = sum(len(b) for b in records._buffers) / 2**20
    assert size > 30
    batches = [[(i, i)] for i in range(len(records))]
    loader = BatchLoader(records, _Count(), [*batches, *batches], num_workers=2)  # type: ignore[arg-type]
    before, seen = set(multiprocessing.active_children()), 0
    stream = iter(loader)
    for _ in range(len(records)):
        seen += sum(item["n"] for item in next(stream))
    assert seen == len(records) * 3 * 120
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2 and all(_private_mib(worker.pid) < size / 2 for worker in workers)
