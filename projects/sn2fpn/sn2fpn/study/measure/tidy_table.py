"""The results of a study as one tidy table: a row for each cell, finished or not."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from ...atomic import atomic_write
from ..files import write_json
from .results import CellResult, StudyResults

__all__ = ["tidy_rows", "write_tables"]


def tidy_rows(results: StudyResults) -> list[dict[str, Any]]:
    """Return the tidy table: a dictionary per cell, all with the same keys, with None where there is no value.

    Scores are in percent, and 0 where a cell has detected nothing. `gflops` are those of one image, and the names of
    times and memory end in their units.
    """
    metrics = list(dict.fromkeys(metric for cell in results.finished for metric in cell.scores))
    return [_row(results, cell, metrics) for cell in results.cells]


def _row(results: StudyResults, cell: CellResult, metrics: list[str]) -> dict[str, Any]:
    name, result = cell.variant, cell.result
    measured = {metric: results.score(cell, metric) for metric in metrics} | results.measured(name)
    del measured["pyramid_parameters"], measured["pyramid_gflops"]  # these are columns of the report alone
    return {
        "study": results.study.name,
        "variant": name,
        **{f"axis:{axis}": value for axis, value in cell.cell.variant.axes.items()},
        "seed": cell.seed,
        "state": str(cell.status.state),
        "note": cell.note or None,
        "engine": result.get("engine"),
        "iterations": result.get("iterations"),
        **{key: None if math.isnan(value) else value for key, value in measured.items()},  # JSON has no NaN
        "train_seconds": result.get("train_seconds"),
        "peak_memory_mib": result.get("peak_memory_mib"),
    }


def write_tables(results: StudyResults, folder: Path) -> tuple[Path, Path]:
    """Write the tidy table as results.csv and results.json (a list of rows) into a folder."""
    rows = tidy_rows(results)
    as_csv, as_json = folder / "results.csv", folder / "results.json"
    with atomic_write(as_csv) as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_json(as_json, rows)
    return as_csv, as_json
