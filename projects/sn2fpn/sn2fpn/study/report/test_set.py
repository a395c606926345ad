"""The test set of a study and the predictions on it that the engine stored with each cell; no model is needed."""

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
from ..measure.results import CellResult

__all__ = ["TestSet", "open_test_set"]


@dataclass(frozen=True)
class TestSet:
    """The first set that the cells were evaluated on, with the data set dicts of its images."""

    __test__ = False  # pytest would take the class for a test

    name: str
    records: list[dict[str, Any]]
    class_names: list[str]
    evaluator: DetectionEvaluator

    def predictions(self, cell: CellResult) -> list[ImageDetections]:
        """Return what a cell has detected in each image; raise a UserError if the file is missing or does not fit."""
        return self.evaluator.read_detections(cell.folder.predictions(self.name))


def open_test_set(cell: CellResult) -> TestSet:
    """Return the first set that a cell was evaluated on.

    Raises:
        UserError: The set is not known or not on this machine, or the cell's configuration cannot be read.
    """
    config = _read(cell.folder.config)
    register_custom(config.get("DATASETS", {}).get("CUSTOM") or [])
    cfg = get_cfg()
    for key in (
        "EVALUATOR",
        "DETECTIONS_PER_IMAGE",
    ):  # evaluators read only these; other keys may be those of another engine
        cfg.TEST[key] = config.get("TEST", {}).get(key, cfg.TEST[key])
    name = cell.test_sets[0]
    records = DatasetCatalog.get(name, where=f"{cell.folder.result_file}: results")
    return TestSet(name, records, class_names(name), build_evaluator(cfg, name))


def _read(path: Path) -> dict[str, Any]:
    """Return a resolved configuration as plain values."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read as YAML: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a configuration, found {type(content).__name__}")
    return content
