"""Measure how many images per second one loader worker prepares, with our mapper and with Detectron2's.

    python tools/benchmark.py loading --images 64

Both mappers read the same JPEG files of 480x640 pixels with eight objects each, resize them to a short edge of 800
pixels and convert the objects, with one thread, as a worker does.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.data import build_mapper
from sn2fpn.structures import BoxMode
from sn2fpn.study.measure.timing import take_turns
from sn2fpn.study.measure.workload import make_images

from .flags import add_number, add_quick, add_repeats
from .machine import watch_load
from .objects import octagon
from .picture import Bars
from .table import Table, mark

__all__ = ["add_arguments", "bars", "run", "tables"]

# What the mapper prepares, with the keys of the configuration.
_WORK: dict[str, list[Any]] = {
    "training, boxes": [],
    "training, masks as polygons": ["MODEL.MASK_ON", True],
    "training, masks as bitmaps": ["MODEL.MASK_ON", True, "INPUT.MASK_FORMAT", "bitmask"],
    "inference": [],
}
_SIZE = ["INPUT.MIN_SIZE_TRAIN", (800,), "INPUT.MAX_SIZE_TRAIN", 1333, "MODEL.DEVICE", "cpu"]  # equal for both

Call = Callable[[], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    add_number(parser, "--images", 24, "images per round (default: %(default)s)")
    add_repeats(parser, 5)
    add_quick(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return "rows" with "work", "engine", "images_s" (a median), "cores_used_by_others" and "reliable"."""
    threads, rows = torch.get_num_threads(), []
    count, size = (2, (48, 64)) if args.quick else (args.images, (480, 640))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        records = _write_images(Path(folder), count, size)
        for work, keys in _WORK.items():
            mappers = {"native": _native(records, work, keys)}
            if importlib.util.find_spec("detectron2"):
                mappers["detectron2"] = _detectron2(records, work, keys)
            timed: list[dict[str, Any]] = []
            with watch_load(timed):
                seconds = take_turns(mappers, args.repeats, warm_up=1)
                timed += [{"work": work, "engine": n, "images_s": count / median(s)} for n, s in seconds.items()]
            rows += timed
    torch.set_num_threads(threads)
    return {"images": count, "size": size, "rows": rows}


def _write_images(folder: Path, count: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Write JPEG files, and return their data set dicts."""
    records = []
    for i, image in enumerate(make_images(count, *size)):
        file = folder / f"{i}.jpg"
        Image.fromarray(image["image"].permute(1, 2, 0).byte().numpy()).save(file, quality=90)
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c, "segmentation": [octagon(box)]}
            for box, c in zip(image["boxes"].tolist(), image["classes"].tolist())
        ]
        size_of = {"height": size[0], "width": size[1]}
        records.append({"file_name": str(file), "image_id": i, **size_of, "annotations": annotations})
    return records


def _native(records: list[dict[str, Any]], work: str, keys: list[Any]) -> Call:
    cfg = get_cfg()
    cfg.merge_from_list([*_SIZE, *keys])
    mapper = build_mapper(cfg, is_train=work != "inference")
    return lambda: [mapper(record, np.random.default_rng(0)) for record in records] and None


def _detectron2(records: list[dict[str, Any]], work: str, keys: list[Any]) -> Call:
    from detectron2.config import get_cfg as get_their_cfg
    from detectron2.data import DatasetMapper
    from detectron2.structures import BoxMode as TheirBoxMode

    cfg = get_their_cfg()
    cfg.merge_from_list([*_SIZE, *keys])
    mapper, records = DatasetMapper(cfg, is_train=work != "inference"), deepcopy(records)
    for annotation in (a for record in records for a in record["annotations"]):
        annotation["bbox_mode"] = TheirBoxMode(int(annotation["bbox_mode"]))
    return lambda: [mapper(record) for record in records] and None


def _by_work(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    for work in _WORK:
        rows = [row for result in results for row in result["rows"] if row["work"] == work]
        if rows:
            yield work, {row["engine"]: row for row in rows}


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the table of rates."""
    cells = []
    for work, rows in _by_work(results):
        ours, theirs = rows["native"], rows.get("detectron2")
        cells.append([work, mark(f"{ours['images_s']:.1f}", ours)])
        if theirs:
            cells[-1] += [mark(f"{theirs['images_s']:.1f}", theirs), f"{ours['images_s'] / theirs['images_s']:.2f}x"]
    return [Table("Images per second of one loader worker", ["work", "native", "detectron2", "ratio"], cells)]


def bars(results: Sequence[dict[str, Any]]) -> list[Bars]:
    """Return the panel of rates."""
    values = {
        f"{engine}: {work}": {"": row["images_s"]} for work, rows in _by_work(results) for engine, row in rows.items()
    }
    return [Bars("Data loading, one worker", "images per second", values)]
