"""The test set, the predictions that the cells stored, and a few test images with what each variant detected."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from ...atomic import atomic_write
from ...config import get_cfg
from ...data import DatasetCatalog, class_names, images_with_objects, read_image, register_custom
from ...errors import UserError
from ...evaluation import build_evaluator
from ...evaluation.detections import DetectionEvaluator, ImageDetections
from ...evaluation.error_split import Judgement, judge_image
from ...evaluation.ground_truth import coco_ground_truth
from ...evaluation.predictions import objects_of
from ...structures import Boxes, Instances
from ...visualization import Shown, draw_instances, draw_shown, fit_image, image_grid, scale_instances, shown_detections
from ..archive.test_sets import annotations_file, use_stored_test_set
from ..measure.results import CellResult, StudyResults
from ..spec.fingerprint import records_fingerprint
from ..spec.study import Cell
from .content import listed

__all__ = ["SCORE_THRESHOLD", "SampleRow", "TestSet", "draw_samples", "open_test_set", "save_sheet"]

SCORE_THRESHOLD = 0.5
_SIZE_PX = 320


@dataclass(frozen=True)
class TestSet:
    """The first set that the cells were evaluated on, with the data set dicts of its images.

    Its evaluators are made for the keys of TEST that a cell's configuration has.
    """

    __test__ = False  # pytest would take the class for a test

    name: str
    records: list[dict[str, Any]]
    class_names: list[str]
    registered: str  # the name under which the images are registered
    judgements: dict[Cell, list[Judgement]] = field(default_factory=dict)
    resampled: dict[tuple[str, tuple[int, ...], int], np.ndarray] = field(default_factory=dict)
    """Scores by the variant, its seeds and the number of resamples."""
    evaluators: dict[tuple[str, int], DetectionEvaluator] = field(default_factory=dict)
    evaluator_of: dict[Cell, DetectionEvaluator] = field(default_factory=dict)

    def areas(self) -> list[float]:
        """Return the area in square pixels of every object that is not a crowd."""
        truth = coco_ground_truth(self.records, range(len(self.class_names)), self.class_names)
        return [a["area"] for a in truth["annotations"] if not a["iscrowd"]]

    def judged(self, cell: CellResult) -> list[Judgement]:
        """Return what a cell's detections in each image are; raise a UserError as `predictions` does."""
        if cell.cell not in self.judgements:
            pairs, counts = zip(self.records, self.predictions(cell), strict=True), self.evaluator(cell).counts
            self.judgements[cell.cell] = [judge_image(record, found, counts) for record, found in pairs]
        return self.judgements[cell.cell]

    def evaluator(self, cell: CellResult) -> DetectionEvaluator:
        """Return the evaluator that a cell was scored with."""
        if cell.cell not in self.evaluator_of:
            given, cfg = cell.folder.configuration().get("TEST", {}), get_cfg()
            for key in ("EVALUATOR", "DETECTIONS_PER_IMAGE"):  # evaluators read only these; others may be of an engine
                cfg.TEST[key] = given.get(key, cfg.TEST[key])
            key = cfg.TEST.EVALUATOR, cfg.TEST.DETECTIONS_PER_IMAGE
            if key not in self.evaluators:
                self.evaluators[key] = build_evaluator(cfg, self.registered)
            self.evaluator_of[cell.cell] = self.evaluators[key]
        return self.evaluator_of[cell.cell]

    def predictions(self, cell: CellResult) -> list[ImageDetections]:
        """Return what a cell has detected in each image; raise a UserError if the file is missing or does not fit."""
        return self.evaluator(cell).read_detections(cell.folder.predictions(self.name))


def open_test_set(results: StudyResults) -> TestSet:
    """Return the first set that the cells were evaluated on; a UserError says that it is not on this machine.

    Annotations that are stored in the study's folder are preferred to those of the data set on this machine.
    """
    cell = results.finished[0]
    config = cell.folder.configuration()
    stored = annotations_file(results.folder, cell.test_sets[0]).is_file()
    with suppress(UserError) if stored else nullcontext():  # an archive may name files of another machine
        register_custom(config.get("DATASETS", {}).get("CUSTOM") or [])
    name = use_stored_test_set(cell.test_sets[0], results.folder)
    if name == cell.test_sets[0]:
        results.study.import_files()  # these files may register the test set
    records = DatasetCatalog.get(name, where=f"{cell.folder.result_file}: results")
    scored = cell.identity.get("fingerprint", {}).get("test data")
    others = _other_records(cell, results.folder)
    if scored and others is not None and records_fingerprint([records, *others]) != scored:
        sets = listed(cell.test_sets, "test set")
        raise UserError(f"the annotations of {sets} have changed since {cell.cell.name} was started")
    return TestSet(cell.test_sets[0], records, class_names(name), name)


def _other_records(cell: CellResult, folder: Path) -> list[list[dict[str, Any]]] | None:
    """Return the images of all test sets but the first, or None if one of them is not on this machine."""
    try:
        return [DatasetCatalog.get(use_stored_test_set(name, folder)) for name in cell.test_sets[1:]]
    except UserError:
        return None


class SampleRow(NamedTuple):
    """One test image with its ground truth and the detections of each variant."""

    file_name: str
    captions: list[str]  # "ground truth" and the variants
    pictures: list[np.ndarray]  # one per caption, (H, W, 3) uint8 RGB


def draw_samples(test_set: TestSet, cells: Sequence[CellResult], images: int = 4) -> list[SampleRow]:
    """Draw at most `images` images of the set with the stored predictions of finished cells, one cell per variant.

    Raises:
        UserError: the images or the predictions are not on this machine, or cannot be read.
    """
    records = images_with_objects(test_set.records, images)
    if records and not any(Path(record["file_name"]).is_file() for record in records):
        example = records[0]["file_name"]
        raise UserError(f"the images of the test set {test_set.name} are not on this machine (for example {example})")
    wanted = {record["image_id"] for record in records}
    found = {
        cell.variant: {d.image_id: d for d in test_set.predictions(cell) if d.image_id in wanted} for cell in cells
    }
    rows = []
    for record in records:
        image = read_image(record["file_name"], "RGB")
        shown = {name: _shown(of_variant[record["image_id"]], image.shape[:2]) for name, of_variant in found.items()}
        masks = any(of_variant.instances.has("pred_masks") for of_variant in shown.values())
        truth = objects_of(record, image.shape[:2], "bitmask" if masks else None)
        small, _ = fit_image(image, _SIZE_PX)
        size, names = small.shape[:2], test_set.class_names
        pictures = [draw_instances(small, scale_instances(truth, size), names, font_size_px=12)]
        pictures += [draw_shown(small, s.scaled(size), names, font_size_px=12) for s in shown.values()]
        rows.append(SampleRow(Path(record["file_name"]).name, ["ground truth", *shown], pictures))
    return rows


def save_sheet(rows: Sequence[SampleRow], path: Path) -> None:
    """Write all samples as one JPEG with a row per image."""
    sheet = image_grid([row.pictures for row in rows], [row.captions for row in rows])
    with atomic_write(path, "wb") as file:
        Image.fromarray(sheet).save(file, format="JPEG", quality=88)


def _shown(found: ImageDetections, size: tuple[int, int]) -> Shown:
    """Return the detections to draw, with `pred_masks` if the model has masks. Only their masks are decoded."""
    instances = Instances(
        size,
        pred_boxes=Boxes(torch.from_numpy(found.boxes).float()),
        scores=torch.from_numpy(found.scores),
        pred_classes=torch.from_numpy(found.classes),
        index=torch.arange(len(found.scores)),
    )
    shown = shown_detections(instances, SCORE_THRESHOLD)
    if found.masks is not None:
        masks = [coco_mask.decode(found.masks[i]).astype(bool) for i in shown.instances.index.tolist()]
        shown.instances.pred_masks = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), dtype=bool))
    return shown
