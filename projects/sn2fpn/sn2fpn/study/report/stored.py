"""The predictions that the engine stored with each cell, and the test set that they belong to; no model needed."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pycocotools import mask as coco_mask

from ...data import DatasetCatalog, MetadataCatalog, class_names, register_custom
from ...errors import UserError
from ...structures import Boxes, Instances
from ..results import CellResult

__all__ = ["TestSet", "open_test_set", "read_predictions"]

Detections = list[dict[str, Any]]  # in COCO's result format


@dataclass(frozen=True)
class TestSet:
    """A set that cells were evaluated on, as its reader gives it."""

    __test__ = False  # no test, pytest

    name: str
    records: list[dict[str, Any]]
    class_names: list[str]

    @cached_property
    def _contiguous(self) -> dict[int, int]:
        """The set's own category id -> contiguous class id."""
        own = MetadataCatalog.get(self.name).get("thing_dataset_id_to_contiguous_id")
        return own or {i: i for i in range(len(self.class_names))}

    def instances(self, record: dict[str, Any], detections: Detections) -> Instances:
        """Detections of one image as `pred_boxes`, `scores`, `pred_classes` and, if they have masks, `pred_masks`."""
        size = (record["height"], record["width"])
        xywh = torch.tensor([d["bbox"] for d in detections], dtype=torch.float32).reshape(-1, 4)
        fields: dict[str, Any] = {
            "pred_boxes": Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)),
            "scores": torch.tensor([d["score"] for d in detections]),
            "pred_classes": torch.tensor([self._contiguous[d["category_id"]] for d in detections], dtype=torch.int64)}
        if detections and all("segmentation" in d for d in detections):
            masks = np.stack([coco_mask.decode(d["segmentation"]) for d in detections])
            fields["pred_masks"] = torch.from_numpy(masks.astype(bool))
        return Instances(size, **fields)


def open_test_set(cell: CellResult) -> TestSet:
    """The first set that a cell was evaluated on.

    Raises:
        UserError: the set is not known or not on this machine, or the cell's config.yaml cannot be read.
    """
    name = cell.test_sets[0]
    register_custom(_custom_sets(cell.folder / "config.yaml"))
    records = DatasetCatalog.get(name, where=f"{cell.folder / 'result.json'}: results")
    return TestSet(name, records, class_names(name))


def read_predictions(cell: CellResult) -> dict[Any, Detections]:
    """{image id: detections, best first} of a cell on its first test set.

    Raises:
        UserError: the file is missing or no list of COCO results.
    """
    path = predictions_path(cell)
    try:
        found: dict[Any, Detections] = defaultdict(list)
        for detection in json.loads(path.read_text(encoding="utf-8")):
            found[detection["image_id"]].append(detection)
        return {image: sorted(of_image, key=lambda d: -d["score"]) for image, of_image in found.items()}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: expected predictions as a list of COCO results, found {type(e).__name__}: {e}"
                        ) from None


def predictions_path(cell: CellResult) -> Path:
    return cell.folder / "inference" / cell.test_sets[0] / "coco_instances_results.json"


def _custom_sets(config: Path) -> list[dict[str, Any]]:
    """DATASETS.CUSTOM of a resolved configuration; [] where there is none."""
    if not config.is_file():
        return []
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{config}: cannot be read as YAML: {e}") from None
    datasets = content.get("DATASETS") if isinstance(content, dict) else None
    return (datasets or {}).get("CUSTOM") or []
