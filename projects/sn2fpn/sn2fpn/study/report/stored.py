"""The predictions that the engine stored with each cell, and the test set that they belong to; no model needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...config import get_cfg
from ...data import DatasetCatalog, class_names, register_custom
from ...errors import UserError
from ...evaluation import build_evaluator
from ...evaluation.detections import DetectionEvaluator, ImageDetections
from ..results import CellResult

__all__ = ["TestSet", "open_test_set"]


@dataclass(frozen=True)
class TestSet:
    """The first set that cells were evaluated on, as its reader gives it."""

    __test__ = False  # no test, pytest

    name: str
    records: list[dict[str, Any]]
    class_names: list[str]
    evaluator: DetectionEvaluator

    def predictions(self, cell: CellResult) -> list[ImageDetections]:
        """What a cell found, an entry per image.

        Raises:
            UserError: the file is missing or does not suit the set.
        """
        return self.evaluator.read_detections(cell.folder / "inference" / self.name / "coco_instances_results.json")


def open_test_set(cell: CellResult) -> TestSet:
    """The first set that a cell was evaluated on.

    Raises:
        UserError: the set is not known or not on this machine, or the cell's config.yaml cannot be read.
    """
    config = _read(cell.folder / "config.yaml")
    register_custom(config.get("DATASETS", {}).get("CUSTOM") or [])
    cfg = get_cfg()
    for key in ("EVALUATOR", "DETECTIONS_PER_IMAGE"):  # all that evaluators read; an engine may not know the others
        cfg.TEST[key] = config.get("TEST", {}).get(key, cfg.TEST[key])
    name = cell.test_sets[0]
    records = DatasetCatalog.get(name, where=f"{cell.folder / 'result.json'}: results")
    return TestSet(name, records, class_names(name), build_evaluator(cfg, name))


def _read(path: Path) -> dict[str, Any]:
    """A resolved configuration as plain values."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read as YAML: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a configuration, found {type(content).__name__}")
    return content
