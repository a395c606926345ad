"""Measure the COCO evaluation of synthetic detections, with our evaluator and with pycocotools' loops.

    python tools/benchmark.py evaluation --images 5000 --tasks bbox segm

Each image has seven objects of 80 classes on average and 100 detections, half of which are near an object. Both sides
start with ground truth and detections in memory, and their scores must be equal. Pycocotools runs only once, because it
takes about a minute for boxes and another one for masks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sn2fpn.data import DatasetCatalog, MetadataCatalog
from sn2fpn.evaluation.coco import COCOEvaluator
from sn2fpn.evaluation.detections import ImageDetections, to_coco_results
from sn2fpn.evaluation.ground_truth import coco_ground_truth
from sn2fpn.structures import BoxMode
from sn2fpn.study.measure.timing import now

from .flags import add_number, add_quick
from .machine import watch_load
from .objects import octagon
from .picture import Bars
from .table import Table, mark

__all__ = ["add_arguments", "bars", "run", "tables"]

CLASSES, DETECTIONS, SIZE = 80, 100, (480, 640)
_DATA_SET = "benchmark_of_the_evaluation"
_SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")  # pycocotools' order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this part."""
    add_number(parser, "--images", 5000, "default: %(default)s")
    tasks = ["bbox", "segm"]
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks, help="boxes, masks (default: both)")
    add_quick(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return "images", "detections" per image and "rows" with "task", "native_s", "pycocotools_s" and "AP".

    Raises:
        RuntimeError: the scores differ.
    """
    count = 30 if args.quick else args.images
    records, detections = _make(count, masks="segm" in args.tasks)
    names = [f"class {c}" for c in range(CLASSES)]
    MetadataCatalog.get(_DATA_SET).set(thing_classes=names)
    DatasetCatalog.register(_DATA_SET, lambda: records)
    rows = []
    try:
        for task in args.tasks:
            row: dict[str, Any] = {"task": task}
            with watch_load(row):
                started = now()
                scores = COCOEvaluator(_DATA_SET, [task]).judge(detections)[task].scores()
                row["native_s"] = now() - started
                results = to_coco_results(detections, range(CLASSES))
                if task == "segm":  # Otherwise pycocotools takes the areas of boxes for those of masks.
                    results = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
                truth = coco_ground_truth(records, range(CLASSES), names)
                started = now()
                theirs = _by_pycocotools(truth, results, task)
                row["pycocotools_s"] = now() - started
            _check_equal({name: float(scores[name][0]) for name in _SCORES}, theirs, task)
            rows.append(row | {"AP": theirs["AP"]})
    finally:
        DatasetCatalog.remove(_DATA_SET)
        MetadataCatalog.remove(_DATA_SET)
    return {"images": count, "detections": DETECTIONS, "rows": rows}


def _by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], task: str) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(_SCORES, (100 * evaluation.stats).tolist()))


def _check_equal(ours: dict[str, float], theirs: dict[str, float], task: str) -> None:
    different = [n for n in _SCORES if not (abs(ours[n] - theirs[n]) < 1e-9 or (np.isnan(ours[n]) and theirs[n] < 0))]
    if different:
        found = ", ".join(f"{n} {ours[n]} and {theirs[n]}" for n in different)
        raise RuntimeError(f"{task}: our scores and those of pycocotools differ: {found}")


def _make(count: int, masks: bool) -> tuple[list[dict[str, Any]], list[ImageDetections]]:
    """Return the data set dicts and the detections of `count` images."""
    rng = np.random.default_rng(0)
    records, detections = [], []
    for i in range(count):
        boxes, labels = _boxes(rng, rng.poisson(7)), rng.integers(0, CLASSES, 15)
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "segmentation": [octagon(box)]}
            for box, label in zip(boxes.tolist(), np.resize(labels, len(boxes)).tolist())
        ]
        record = {"file_name": f"{i}.jpg", "image_id": i, "height": SIZE[0], "width": SIZE[1]}
        records.append({**record, "annotations": annotations})
        found, classes = _detect(rng, boxes, np.resize(labels, len(boxes)))
        rle = _masks(found) if masks else None
        scores = np.sort(rng.beta(0.5, 2, DETECTIONS).astype(np.float32))[::-1].round(3)
        detections.append(ImageDetections(i, found, scores, classes, rle))
    return records, detections


def _boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Draw boxes (x1, y1, x2, y2) of all sizes."""
    side = np.exp(rng.uniform(np.log(10), np.log(300), (number, 2)))
    corner = rng.uniform(0, 1, (number, 2)) * (np.array(SIZE[::-1]) - side)
    return np.concatenate([corner, corner + side], axis=1)


def _detect(rng: np.random.Generator, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw detections: half of them near an object and mostly of its class, and the others anywhere."""
    found, classes = _boxes(rng, DETECTIONS), rng.integers(0, CLASSES, DETECTIONS)
    if len(boxes):
        near = rng.integers(0, len(boxes), DETECTIONS // 2)
        side = np.tile(boxes[near, 2:] - boxes[near, :2], 2)
        found[: len(near)] = boxes[near] + rng.normal(0, 0.1, (len(near), 4)) * side
        classes[: len(near)] = np.where(rng.random(len(near)) < 0.8, labels[near], classes[: len(near)])
    found = np.concatenate([np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:]) + 1], 1)
    return found.clip(0, np.tile(SIZE[::-1], 2)).astype(np.float32), classes


def _masks(boxes: np.ndarray) -> list[dict[str, Any]]:
    """Return octagons as run lengths."""
    encoded = coco_mask.frPyObjects([octagon(box) for box in boxes.tolist()], *SIZE)
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in encoded]


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the table of seconds."""
    cells = []
    for result in results:
        for row in result["rows"]:
            what = f"{result['images']:,} images, {result['detections']} detections each, {row['task']}"
            seconds = [mark(f"{row[side]:.1f} s", row) for side in ("native_s", "pycocotools_s")]
            cells.append([what, *seconds, f"{row['pycocotools_s'] / row['native_s']:.1f}x", f"{row['AP']:.2f}"])
    headers = ["COCO evaluation", "native", "pycocotools", "ratio", "AP of both"]
    return [Table("COCO evaluation with equal scores", headers, cells)]


def bars(results: Sequence[dict[str, Any]]) -> list[Bars]:
    """Return the panel of seconds."""
    values = {
        f"{side}: {row['task']}": {"": row[f"{side}_s"]}
        for result in results
        for row in result["rows"]
        for side in ("native", "pycocotools")
    }
    return [Bars("COCO evaluation", "seconds", values)]
