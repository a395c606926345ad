"""The same test images, with their ground truth and with what each variant found in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ...data import read_image
from ...data.augmentation import TransformList
from ...data.mapper import annotations_to_instances
from ...evaluation.detections import ImageDetections
from ...structures import Boxes, Instances
from ...visualization import draw_instances, fit_image, scale_instances
from ..results import CellResult
from .stored import TestSet

__all__ = ["SCORE_THRESHOLD", "SampleRow", "draw_samples"]

SCORE_THRESHOLD = 0.5
_SIZE_PX = 320


class SampleRow(NamedTuple):
    """One test image: the pictures belong to the captions."""

    file_name: str
    captions: list[str]  # "ground truth", then the variants
    pictures: list[np.ndarray]  # (H, W, 3) uint8 RGB


def draw_samples(test_set: TestSet, cells: Sequence[CellResult], images: int = 4) -> list[SampleRow]:
    """Draw images spread evenly over the set, those with objects first, for one cell per variant.

    Args:
        cells: finished ones; their stored predictions are drawn.
        images: how many, at most.

    Raises:
        UserError: stored predictions or an image are missing or broken.
    """
    records = [record for record in test_set.records if record["annotations"]] or test_set.records
    chosen = np.unique(np.linspace(0, len(records) - 1, min(images, len(records))).round().astype(int))
    wanted = {records[i]["image_id"] for i in chosen}
    found = {
        cell.variant: {d.image_id: d for d in test_set.predictions(cell) if d.image_id in wanted} for cell in cells
    }
    rows = []
    for record in (records[i] for i in chosen):
        image = read_image(record["file_name"], "RGB")
        shown = {
            name: _instances(of_variant[record["image_id"]], image.shape[:2]) for name, of_variant in found.items()
        }
        masks = any(instances.has("pred_masks") for instances in shown.values())
        truth = annotations_to_instances(
            record["annotations"], TransformList([]), image.shape[:2], "bitmask" if masks else None
        )
        pictures = [_picture(image, instances, test_set.class_names) for instances in (truth, *shown.values())]
        rows.append(SampleRow(Path(record["file_name"]).name, ["ground truth", *shown], pictures))
    return rows


def _instances(found: ImageDetections, size: tuple[int, int]) -> Instances:
    """The detections that are drawn, with `pred_masks` where the model has masks."""
    keep = found.scores >= SCORE_THRESHOLD
    instances = Instances(
        size,
        pred_boxes=Boxes(torch.from_numpy(found.boxes[keep]).float()),
        scores=torch.from_numpy(found.scores[keep]),
        pred_classes=torch.from_numpy(found.classes[keep]),
    )
    if found.masks is not None:
        masks = [coco_mask.decode(mask).astype(bool) for mask, kept in zip(found.masks, keep, strict=True) if kept]
        instances.pred_masks = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), dtype=bool))
    return instances


def _picture(image: np.ndarray, instances: Instances, names: Sequence[str]) -> np.ndarray:
    small, _ = fit_image(image, _SIZE_PX)
    return draw_instances(small, scale_instances(instances, small.shape[:2]), names, font_size_px=12)
