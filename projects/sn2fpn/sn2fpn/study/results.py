"""What a study left in its folder, as one tidy table: a row per cell, whether it finished or not."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from ..atomic import atomic_write
from ..errors import UserError
from .file import Study, cell_folder
from .records import read_state

__all__ = ["CellResult", "StudyResults", "load_results", "read_json", "write_tables"]

Series = dict[str, Any]  # as `visualization.curves.read_metrics` gives them


@dataclass(frozen=True)
class CellResult:
    """One cell of the study, a variant with a seed.

    Attributes:
        folder: the engine's output folder of the cell.
        state: "finished", "running", "failed", "interrupted" or "waiting".
        note: why there is no result; "" for a finished cell.
        record: cell.json, {} where there is none.
        result: result.json, {} unless finished.
    """

    variant: str
    axes: dict[str, str]
    seed: int
    folder: Path
    state: str
    note: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.variant}/seed{self.seed}"

    @property
    def test_sets(self) -> list[str]:
        return list(self.result.get("results", {}))

    @cached_property
    def scores(self) -> dict[str, float]:
        """`{"bbox/AP": …, "bbox/AP-circle": …}` in percent, NaN where there is no value.

        Of a second and further test set as "<set>/bbox/AP"; the first goes by both names.
        """
        flat: dict[str, float] = {}
        for position, (test_set, tasks) in enumerate(self.result.get("results", {}).items()):
            for task, metrics in tasks.items():
                for name, value in metrics.items():
                    score = math.nan if value is None else float(value)
                    if position == 0:
                        flat[f"{task}/{name}"] = score
                    if len(self.test_sets) > 1:
                        flat[f"{test_set}/{task}/{name}"] = score
        return flat

    def curves(self) -> Series:
        """Losses and scores over iterations from metrics.json; {} where the cell has not written any."""
        from ..visualization.curves import read_metrics  # brings matplotlib and torch

        path = self.folder / "metrics.json"
        return read_metrics(path) if path.is_file() and path.stat().st_size else {}


@dataclass(frozen=True)
class StudyResults:
    """A study with everything measured so far.

    Attributes:
        cells: all that the study file asks for, in its order.
        costs, speed, features: the contents of the files of these names, {} where they are not there.
    """

    folder: Path
    study: Study
    cells: tuple[CellResult, ...]
    costs: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)

    @property
    def variants(self) -> list[str]:
        return [variant.name for variant in self.study.variants]

    @property
    def baseline(self) -> str:
        return self.study.baseline.name

    @property
    def finished(self) -> list[CellResult]:
        return [cell for cell in self.cells if cell.state == "finished"]

    @property
    def absent(self) -> list[CellResult]:
        """The cells without a result; each has a `note`."""
        return [cell for cell in self.cells if cell.state != "finished"]

    def of(self, variant: str) -> list[CellResult]:
        """The finished cells of a variant, by seed."""
        return [cell for cell in self.finished if cell.variant == variant]

    def values(self, variant: str, metric: str) -> dict[int, float]:
        """{seed: value} of the finished cells that have the metric."""
        found = {cell.seed: cell.scores.get(metric, math.nan) for cell in self.of(variant)}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    @cached_property
    def metrics(self) -> list[str]:
        """The study's metrics that at least one finished cell has; before any has finished, all of them."""
        present = {metric for cell in self.finished for metric, value in cell.scores.items() if not math.isnan(value)}
        return [metric for metric in self.study.metrics if metric in present or not self.finished]

    @property
    def headline(self) -> str:
        """The first metric: the one that conclusions are about."""
        return (self.metrics or list(self.study.metrics))[0]

    def label(self, metric: str) -> str:
        """ "AP50" for "bbox/AP50", "box AP50" where masks are measured, too; "mask AP" for "segm/AP"."""
        task, _, name = metric.rpartition("/")
        masks = any(m.startswith("segm/") for m in self.study.metrics)
        return {"bbox": "box " if masks else "", "segm": "mask "}.get(task, f"{task} ") + name

    def parameters(self, variant: str) -> float:
        """All parameters of the detector; NaN where not counted."""
        return _total(self.costs.get(variant, {}).get("parameters"))

    def gflops(self, variant: str) -> float:
        """Of one image of the counted size; NaN where not counted."""
        return _total(self.costs.get(variant, {}).get("flops")) / 1e9

    def latency_ms(self, variant: str) -> float:
        """Median inference time of one image, in milliseconds; NaN where not measured."""
        return 1e3 * _median(self._timing(variant, "inference_s"))

    def throughput(self, variant: str) -> float:
        """Training images per second; NaN where not measured."""
        return self.speed.get("batch", math.nan) / _median(self._timing(variant, "train_step_s"))

    def peak_memory_mib(self, variant: str, phase: str) -> float:
        """Peak memory of "inference" or "training" in the speed run; NaN where not measured."""
        value = self._timing(variant, "peak_memory_mib")
        value = value.get(phase) if isinstance(value, dict) else None
        return math.nan if value is None else float(value)

    def rows(self) -> list[dict[str, Any]]:
        """The tidy table: a dict per cell, all with the same keys; None where there is no value.

        Scores are in percent, `gflops` of one image, times in the unit that their name ends in.
        """
        metrics = list(dict.fromkeys(metric for cell in self.finished for metric in cell.scores))
        axes = list(dict.fromkeys(axis for cell in self.cells for axis in cell.axes))
        rows = []
        for cell in self.cells:
            row: dict[str, Any] = {"study": self.study.name, "variant": cell.variant}
            row |= {f"axis:{axis}": cell.axes.get(axis) for axis in axes}
            row |= {"seed": cell.seed, "state": cell.state, "note": cell.note or None}
            row |= {key: cell.result.get(key) for key in ("engine", "iterations")}
            row |= {metric: _plain(cell.scores.get(metric)) for metric in metrics}
            row |= {
                "parameters": _plain(self.parameters(cell.variant)),
                "gflops": _plain(self.gflops(cell.variant)),
                "latency_ms": _plain(self.latency_ms(cell.variant)),
                "train_images_per_s": _plain(self.throughput(cell.variant)),
                "inference_memory_mib": _plain(self.peak_memory_mib(cell.variant, "inference")),
                "training_memory_mib": _plain(self.peak_memory_mib(cell.variant, "training")),
                "train_seconds": cell.result.get("train_seconds"),
                "peak_memory_mib": cell.result.get("peak_memory_mib"),
            }
            rows.append(row)
        return rows

    def _timing(self, variant: str, key: str) -> Any:
        return self.speed.get("variants", {}).get(variant, {}).get(key)


def load_results(folder: str | Path) -> StudyResults:
    """Read a study folder; cells that are missing, unfinished or failed are in the table, too.

    Raises:
        UserError: no study.yaml there, or a file that is no JSON of the expected form; the message names it.
    """
    folder = Path(folder)
    if not (folder / "study.yaml").is_file():
        raise UserError(
            f"{folder}: no study.yaml there; expected the folder of a study, such as "
            "output/studies/quick_shapes, as `python -m sn2fpn.study run` writes it"
        )
    study = Study.load(folder / "study.yaml")
    extra = {name: read_json(folder / f"{name}.json") for name in ("costs", "speed", "features")}
    return StudyResults(folder, study, tuple(_load_cell(folder, cell) for cell in study.cells), **extra)


def write_tables(results: StudyResults) -> tuple[Path, Path]:
    """Write the tidy table as results.csv and results.json (a list of rows) into the study's folder."""
    rows = results.rows()
    as_csv, as_json = results.folder / "results.csv", results.folder / "results.json"
    with atomic_write(as_csv) as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    with atomic_write(as_json) as file:
        json.dump(rows, file, indent=1, allow_nan=False)
    return as_csv, as_json


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} when there is no such file.

    Raises:
        UserError: it cannot be read, is no JSON, or no object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path}: cannot be read as JSON ({e}); delete it, and the study writes it anew") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _load_cell(folder: Path, cell: Any) -> CellResult:
    place = cell_folder(folder, cell)
    record, result = read_json(place / "cell.json"), read_json(place / "result.json")
    known = {
        "variant": cell.variant.name,
        "axes": {k: str(v) for k, v in cell.variant.axes.items()},
        "seed": cell.seed,
        "folder": place,
        "record": record,
    }
    if result:
        _check_scores(place / "result.json", result)
        return CellResult(**known, state="finished", result=result)
    found = read_state(place)
    reached = f"at iteration {found.iteration:,}" if found.iteration else "before the first iteration was logged"
    notes = {"failed": found.note or "no reason written", "waiting": "never started", "interrupted": reached}
    return CellResult(**known, state=found.state, note=notes.get(found.state, f"{reached}, {found.note}".strip(", ")))


def _check_scores(path: Path, result: dict[str, Any]) -> None:
    """`{"results": {set: {task: {metric: number or null}}}}`, or a UserError."""
    sets = result.get("results")
    for test_set, tasks in _items(sets, path, "results"):
        for task, metrics in _items(tasks, path, f"results/{test_set}"):
            for metric, value in _items(metrics, path, f"results/{test_set}/{task}"):
                if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                    raise UserError(
                        f"{path}: results/{test_set}/{task}/{metric}: expected a number or null, found {value!r}"
                    )


def _items(value: Any, path: Path, where: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {where}: expected an object, found {type(value).__name__}")
    return value.items()


def _total(parts: Any) -> float:
    """Of a count by part, which may hold its own "total"."""
    if not isinstance(parts, dict) or not parts:
        return math.nan
    return float(parts["total"] if "total" in parts else sum(parts.values()))


def _median(values: Any) -> float:
    return median(values) if values else math.nan


def _plain(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or math.isnan(value) else value
