"""What a study has measured so far: its cells, finished or not, with costs, speed, features and tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ...errors import UserError
from ...visualization.curves import Series, read_metrics
from ..files import check_form, read_json, with_nested_variants
from ..folder import CellFolder, State, Status
from ..spec.study import Cell, Study
from ..spec.tuning import TUNING_FOLDER, Choice, choose

__all__ = ["CellResult", "StudyResults", "load_cell", "load_results", "tuning_scores"]

_WORK: dict[str, Any] = {"proposals": (float,), "detections": (float,), "image_size": ([float],)}
_FORMS: dict[str, Any] = {
    "costs": {...: {"parameters": {...: float}, "flops": {...: float}, "size": [int]}},
    "speed": {
        **dict.fromkeys(("batch", "cores_used_by_others"), float),
        **dict.fromkeys(("threads", "rounds"), (float,)),
        **_WORK,  # of all variants, in files of earlier versions
        "variants": {
            ...: {
                **_WORK,
                "inference_s": ([float],),
                "train_step_s": ([float],),
                "peak_memory_mib": ({"inference": float | None, "training": float | None},),
            }
        },
    },
    "features": dict,
}
_FORM_OF_FEATURES = {"variants": {...: {...: {...: float | None}}}, "seeds": {...: int}}  # variant, level, measure


@dataclass(frozen=True)
class CellResult:
    """One cell of the study and what it left in its folder."""

    folder: CellFolder
    status: Status
    identity: dict[str, Any]  # {} if the cell never started
    result: dict[str, Any]  # {} unless the cell is finished

    @property
    def cell(self) -> Cell:
        return self.folder.cell

    @property
    def variant(self) -> str:
        return self.cell.variant.name

    @property
    def seed(self) -> int:
        return self.cell.seed

    @property
    def note(self) -> str:
        """Why there is no result; "" for a finished cell."""
        status = self.status
        reached = f"at iteration {status.iteration:,}" if status.iteration else "before the first iteration was logged"
        if status.state is State.FAILED:
            return status.note or "no reason was written"
        if status.state is State.RUNNING:
            return f"{reached}, {status.note}".removesuffix(", ")
        return {State.FINISHED: "", State.WAITING: "never started", State.INTERRUPTED: reached}[status.state]

    @property
    def test_sets(self) -> list[str]:
        return list(self.result.get("results", {}))

    @cached_property
    def scores(self) -> dict[str, float]:
        """Scores in percent, {"bbox/AP": …, "bbox/AP-circle": …}, NaN where there is no value.

        With several test sets, each set's scores are called "<set>/bbox/AP"; the first set's go by both names.
        """
        scores: dict[str, float] = {}
        for position, (test_set, tasks) in enumerate(self.result.get("results", {}).items()):
            for task, metrics in tasks.items():
                for name, value in metrics.items():
                    score = math.nan if value is None else float(value)
                    if position == 0:
                        scores[f"{task}/{name}"] = score
                    if len(self.test_sets) > 1:
                        scores[f"{test_set}/{task}/{name}"] = score
        return scores

    def mean_over_sets(self, metric: str) -> float:
        """Return the mean of a score over the test sets, where no score counts as 0."""
        names = [f"{test_set}/{metric}" for test_set in self.test_sets] if len(self.test_sets) > 1 else [metric]
        return fmean(0.0 if math.isnan(score := self.scores.get(name, math.nan)) else score for name in names)

    def detected_nothing(self, task: str) -> bool:
        """Return whether the cell was evaluated and has no score of a task, because there was no detection."""
        scores = [score for name, score in self.scores.items() if name.startswith(f"{task}/")]
        return bool(scores) and all(map(math.isnan, scores))

    def curves(self) -> Series:
        """Return losses and scores over iterations, {} if the cell has not written any."""
        path = self.folder.metrics
        return read_metrics(path) if path.is_file() and path.stat().st_size else {}


@dataclass(frozen=True)
class StudyResults:
    """A study with everything that has been measured so far; what was not measured is {}."""

    folder: Path
    study: Study
    cells: tuple[CellResult, ...]
    costs: dict[str, Any]  # written by `measure_costs`
    speed: dict[str, Any]  # written by `measure_speed`
    features: dict[str, Any]  # written by the features' `measure_study`
    tuning: tuple[Choice, ...] = ()  # what TUNE tried for each variant
    tuning_metric: str = ""  # the metric of their scores

    @property
    def variants(self) -> list[str]:
        return [variant.name for variant in self.study.variants]

    @property
    def baseline(self) -> str:
        return self.study.baseline.name

    @cached_property
    def finished(self) -> list[CellResult]:
        return [cell for cell in self.cells if cell.status.state is State.FINISHED]

    @property
    def absent(self) -> list[CellResult]:
        """The cells without a result."""
        return [cell for cell in self.cells if cell.status.state is not State.FINISHED]

    def of(self, variant: str) -> list[CellResult]:
        """Return the finished cells of a variant, ordered by seed."""
        return [cell for cell in self.finished if cell.variant == variant]

    def values(self, variant: str, metric: str) -> dict[int, float]:
        """Return {seed: value} of a variant's finished cells that have the metric; to detect nothing counts as 0."""
        found = {cell.seed: self.score(cell, metric) for cell in self.of(variant)}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def score(self, cell: CellResult, metric: str) -> float:
        """Return a cell's score, NaN if it has none; to detect nothing counts as 0."""
        return 0.0 if cell in self.silent(metric) else cell.scores.get(metric, math.nan)

    def silent(self, metric: str) -> list[CellResult]:
        """Return the finished cells that detected nothing, if others show that the test set has objects to detect."""
        task = metric.partition("/")[0]
        return [cell for cell in self.finished if cell.detected_nothing(task)] if metric in self._known else []

    @cached_property
    def _known(self) -> set[str]:
        """The metrics that at least one finished cell has."""
        return {metric for cell in self.finished for metric, value in cell.scores.items() if not math.isnan(value)}

    @cached_property
    def metrics(self) -> list[str]:
        """The study's metrics that at least one finished cell has; all of them before any cell has finished."""
        return [metric for metric in self.study.metrics if metric in self._known or not self.finished]

    @property
    def headline(self) -> str:
        """The metric that conclusions are about."""
        return (self.metrics or list(self.study.metrics))[0]

    def label(self, metric: str) -> str:
        """Return the name of a metric for readers, for example "AP50", "box AP50" or "mask AP"."""
        task, _, name = metric.rpartition("/")
        masks = any(m.startswith("segm/") for m in self.study.metrics)
        return {"bbox": "box " if masks else "", "segm": "mask "}.get(task, f"{task} ") + name

    def measured(self, variant: str) -> dict[str, float]:
        """Return costs, speed and memory of a variant, NaN where one was not measured.

        Parameters and GFLOPs are those of the detector and of its pyramid for one image of the counted size. Times are
        medians over the rounds, and memory is that of the peak.
        """
        costs, timing = self.costs.get(variant, {}), self.speed.get("variants", {}).get(variant, {})
        parameters, flops, memory = costs.get("parameters", {}), costs.get("flops", {}), timing.get("peak_memory_mib")
        values = {
            "parameters": _total(parameters),
            "gflops": _total(flops) / 1e9,
            "latency_ms": 1e3 * _median(timing.get("inference_s")),
            "train_images_per_s": self.speed.get("batch", math.nan) / _median(timing.get("train_step_s")),
            "inference_memory_mib": (memory or {}).get("inference"),
            "training_memory_mib": (memory or {}).get("training"),
            "pyramid_parameters": parameters.get("pyramid"),
            "pyramid_gflops": flops.get("pyramid", math.nan) / 1e9,
        }
        return {name: math.nan if value is None else float(value) for name, value in values.items()}

    def times(self, variant: str, name: str) -> list[float]:
        """Return "inference_s" or "train_step_s" of each round, [] where they were not measured."""
        return self.speed.get("variants", {}).get(variant, {}).get(name) or []


def load_results(folder: str | Path, trust: bool = False) -> StudyResults:
    """Read a study's folder, including cells that are missing, unfinished or failed; a UserError names broken files.

    No code is run. `trust` says whether `study.import_files` may run somebody else's.
    """
    folder = Path(folder)
    if not (folder / "study.yaml").is_file():
        raise UserError(
            f"{folder}: no study.yaml there; expected the folder of a study that `python -m sn2fpn.study run` has "
            "written, such as output/studies/quick_shapes"
        )
    study = Study.load(folder / "study.yaml", trust)
    measured = {name: read_json(folder / f"{name}.json", form) for name, form in _FORMS.items()}
    measured["features"] = with_nested_variants(measured["features"])
    check_form(measured["features"], _FORM_OF_FEATURES, folder / "features.json")
    cells = tuple(load_cell(CellFolder(folder, cell)) for cell in study.cells)
    return StudyResults(folder, study, cells, **measured, **_load_tuning(study, folder / TUNING_FOLDER))


def tuning_scores(tuning: Study, folder: Path) -> dict[str, float]:
    """Return the first metric of each variant of a tuning study that has finished, as the mean over its test sets.

    No score counts as 0.
    """
    cells = [load_cell(CellFolder(folder, cell)) for cell in tuning.cells]
    return {c.variant: c.mean_over_sets(tuning.metrics[0]) for c in cells if c.status.state is State.FINISHED}


def _load_tuning(study: Study, folder: Path) -> dict[str, Any]:
    """Return the fields of `StudyResults` on the tuning, {} if nothing is tuned."""
    if not study.tune or not (folder / "study.yaml").is_file():
        return {}
    tuning = Study.load(folder / "study.yaml")
    choices = choose(study, tuning_scores(tuning, folder), complete=False)
    return {"tuning": tuple(choices), "tuning_metric": tuning.metrics[0]}


def load_cell(folder: CellFolder) -> CellResult:
    """Read the folder of one cell; a UserError names a broken file."""
    identity, result = folder.identity(), folder.result()
    return CellResult(folder, folder.status(), identity, result)


def _total(parts: dict[str, float]) -> float:
    """Return the sum of a count by parts, which may include their "total"; NaN without parts."""
    return parts["total"] if "total" in parts else sum(parts.values()) if parts else math.nan


def _median(values: list[float] | None) -> float:
    return (median(values) or math.nan) if values else math.nan  # a time of 0 is none
