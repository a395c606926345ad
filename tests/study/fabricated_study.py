"""Make a study folder as the runner leaves it, but without training: its predictions are jittered ground truth."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from sn2fpn.data import DatasetCatalog, class_names, register_custom
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator
from sn2fpn.structures import Boxes, BoxMode, Instances

CLASSES = ("box", "plate")


def write_images(folder: Path, images: int = 6, size: tuple[int, int] = (60, 80)) -> dict[str, str]:
    """Write a COCO set of coloured rectangles and return its entry in DATASETS.CUSTOM."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 * (i + 1), "name": n} for i, n in enumerate(CLASSES)],
    }
    folder.mkdir(parents=True)
    for image_id in range(1, images + 1):
        picture = np.full((*size, 3), 128, np.uint8)
        for _ in range(3):
            w, h = rng.integers(8, 40, 2)
            x, y = rng.integers(0, size[1] - w), rng.integers(0, size[0] - h)
            picture[y : y + h, x : x + w] = rng.integers(0, 255, 3)
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "iscrowd": 0,
                    "area": int(w * h),
                    "category_id": 10 * (1 + int(rng.integers(len(CLASSES)))),
                    "bbox": [int(x), int(y), int(w), int(h)],
                    "segmentation": [[int(v) for v in corners]],
                }
            )
        Image.fromarray(picture).save(folder / f"{image_id}.png")
        content["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": size[0], "width": size[1]})
    (folder / "set.json").write_text(json.dumps(content))
    name = f"fabricated_{zlib.crc32(str(folder).encode())}"  # a registered name cannot be used again
    return {"NAME": name, "FORMAT": "coco", "JSON": str(folder / "set.json"), "IMAGES": str(folder)}


def fabricate(
    folder: Path,
    variants: Mapping[str, float],
    seeds: Sequence[int] = (1, 2, 3),
    *,
    test_set: str | None = None,
    masks: bool = False,
    voc: bool = False,
    metrics: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> Path:
    """Write a study with costs and speed.

    Args:
        folder: Folder of the study.
        variants: For each variant, the error of its predictions as a part of a box's side. The first is the baseline.
        seeds: Seeds of the study.
        test_set: A registered set. None makes a small one.
        masks: Whether there are predictions of masks.
        voc: Whether the evaluator is that of VOC.
        metrics: Metrics of the study.
        without: Cells that have never started, such as "sni/seed2".
    """
    custom = [] if test_set else [write_images(folder / "images")]
    register_custom(custom)
    test_set = test_set or custom[0]["NAME"]
    study = {
        "NAME": folder.name,
        "BASE": "../base.yaml",
        "AXES": {"pyramid": {name: {"MODEL.BACKBONE.NAME": f"build_sn2_{name}_backbone"} for name in variants}},
        "SEEDS": list(seeds),
        "ENGINE": "native",
    }
    if metrics:
        study["METRICS"] = list(metrics)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    for i, (name, noise) in enumerate(variants.items()):
        for seed in seeds:
            if f"{name}/seed{seed}" not in without:
                _write_cell(
                    folder / "cells" / name / f"seed{seed}",
                    name,
                    seed,
                    noise,
                    test_set,
                    custom,
                    masks,
                    voc,
                    np.random.default_rng([i, seed]),
                )
    _write_costs(folder, list(variants))
    return folder


def _write_cell(
    cell: Path,
    name: str,
    seed: int,
    noise: float,
    test_set: str,
    custom: list[dict[str, str]],
    masks: bool,
    voc: bool,
    rng: np.random.Generator,
) -> None:
    out = cell / "inference" / test_set
    evaluator = PascalVOCEvaluator(test_set, output_dir=out) if voc else COCOEvaluator(test_set, output_dir=out)
    evaluator.reset()
    for record in DatasetCatalog.get(test_set):
        found = _jittered(record, noise, len(class_names(test_set)), masks, rng)
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": found}])
    scores = {
        task: {k: None if v != v else v for k, v in values.items()} for task, values in evaluator.evaluate().items()
    }
    (cell / "config.yaml").write_text(yaml.safe_dump({"DATASETS": {"CUSTOM": custom, "TEST": [test_set]}}))
    (cell / "cell.json").write_text(
        json.dumps(
            {
                "variant": name,
                "axes": {"pyramid": name},
                "seed": seed,
                "overrides": {"SEED": seed},
                "command": ["python", "train_net.py", "--config-file", "base.yaml", "SEED", str(seed)],
                "versions": {"python": "3.12", "torch": "2.15"},
                "commit": "abc1234",
                "host": "bench",
                "started": f"2026-01-0{min(seed, 9)}T10:00:00",
                "fingerprint": {"trunk": f"t{seed}", "pyramid": f"{name}{seed}", "data order": f"d{seed}"},
            }
        )
    )
    (cell / "result.json").write_text(
        json.dumps(
            {
                "variant": name,
                "axes": {"pyramid": name},
                "seed": seed,
                "engine": "native",
                "iterations": 100,
                "train_seconds": 60.0 + seed,
                "peak_memory_mib": 1000.0,
                "finished": f"2026-01-0{min(seed, 9)}T11:00:00",
                "results": {test_set: scores},
            }
        )
    )
    ap = scores["bbox"]["AP"] or 0.0
    with (cell / "metrics.json").open("w") as file:
        for i in range(1, 101):
            line = {"iteration": i, "total_loss": 3 * np.exp(-i / 30) + noise + rng.normal(0, 0.1)}
            if i % 25 == 0:
                line["bbox/AP"] = ap * (1 - np.exp(-i / 25)) / (1 - np.exp(-4))
            file.write(json.dumps(line) + "\n")


def _jittered(record: dict[str, Any], noise: float, classes: int, masks: bool, rng: np.random.Generator) -> Instances:
    height, width = record["height"], record["width"]
    boxes, labels, scores = [], [], []
    for truth in record["annotations"]:
        box = np.asarray(BoxMode.convert(truth["bbox"], truth["bbox_mode"], BoxMode.XYXY_ABS), dtype=np.float64)
        if rng.random() < 0.9:
            boxes.append(box + rng.normal(0, noise, 4) * np.tile(box[2:] - box[:2], 2))
            labels.append(truth["category_id"] if rng.random() < 0.92 else int(rng.integers(classes)))
            scores.append(rng.uniform(0.3, 1))
        if rng.random() < 0.3:
            x, y = rng.uniform(0, width - 20), rng.uniform(0, height - 20)
            boxes.append(np.array([x, y, x + 15, y + 18]))
            labels.append(int(rng.integers(classes)))
            scores.append(rng.uniform(0.05, 0.7))
    moved = torch.tensor(np.array(boxes).reshape(-1, 4)).float().clamp(min=0)
    moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 2)
    moved = torch.minimum(moved, torch.tensor([width, height] * 2))
    found = Instances(
        (height, width),
        pred_boxes=Boxes(moved),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(labels, dtype=torch.int64),
    )
    if masks:
        bitmaps = torch.zeros((len(moved), height, width), dtype=torch.bool)
        for bitmap, (x1, y1, x2, y2) in zip(bitmaps, moved.round().int().tolist()):
            bitmap[y1:y2, x1:x2] = True
        found.pred_masks = bitmaps
    return found


def _write_costs(folder: Path, names: list[str]) -> None:
    costs, speed = {}, {}
    for i, name in enumerate(names):
        costs[name] = {
            "parameters": {"trunk": 11_200_000, "pyramid": 400_000 + 900_000 * i, "rpn": 40_000},
            "flops": {"trunk": 5.0e9, "pyramid": 0.7e9 + 0.6e9 * i, "rpn": 0.4e9},
            "activations": {"trunk": 1, "pyramid": 1},
            "size": [192, 320],
        }
        speed[name] = {
            "inference_s": [0.050 + 0.005 * i, 0.052 + 0.005 * i, 0.051 + 0.005 * i],
            "train_step_s": [0.50 + 0.02 * i] * 3,
            "peak_memory_mib": {"inference": 500.0, "training": 900.0},
        }
    (folder / "costs.json").write_text(json.dumps(costs))
    (folder / "speed.json").write_text(
        json.dumps(
            {
                "device": "cpu",
                "threads": 2,
                "rounds": 3,
                "image_size": [192, 320],
                "batch": 4,
                "proposals": 200,
                "detections": 100,
                "cores": 4,
                "cores_used_by_others": 1.5,
                "reliable": False,
                "variants": speed,
            }
        )
    )
