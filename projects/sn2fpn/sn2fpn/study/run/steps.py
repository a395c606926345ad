"""The steps after the cells: costs, speed, features and the report.

Each step is done once, and again when a cell has finished since.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..features.examine import measure_study
from ..folder import CellFolder
from ..measure.cost import measure_costs
from ..measure.speed import measure_speed
from ..report.writing import write_report
from ..spec.study import Study

__all__ = ["STEPS", "StepsJob", "run_steps"]

STEPS: dict[str, tuple[str, Callable[[Study, Path], Any]]] = {
    "costs": ("costs.json", measure_costs),
    "speed": ("speed.json", measure_speed),
    "features": ("features.json", measure_study),
    "report": ("report/report.md", lambda study, folder: write_report(folder, trust=study.trust)),
}
"""Name -> (the file that the step writes, the function); in order, since the report reads what the others wrote."""


def run_steps(study: Study, folder: Path, again: Collection[str] = ()) -> list[str]:
    """Do every step that is missing, older than a cell's result or named in `again`, and return those that failed.

    The report is also written again after any other step. A step that fails does not stop the others.
    """
    results = [place.result_file for cell in study.cells if (place := CellFolder(folder, cell)).is_finished]
    newest = max((path.stat().st_mtime for path in results), default=0.0)
    failed, done = [], False
    for name, (file, step) in STEPS.items():
        path = folder / file
        fresh = path.is_file() and path.stat().st_mtime >= newest
        if fresh and name not in again and not (name == "report" and done):
            print(f"{name}: {path} is up to date")
            continue
        print(f"{name} …", flush=True)
        try:
            step(study, folder)
            done = True
            print(f"{name}: {path}", flush=True)
        except Exception as e:
            failed.append(name)
            cause = str(e) if isinstance(e, UserError) else traceback.format_exc()
            print(f"error: the step {name} failed, the others go on; --again {name} repeats it: {cause}", flush=True)
    return failed


@dataclass
class StepsJob:
    """The steps as a job that runs where the cells ran, so that the speed is that of the cluster's machine."""

    study_file: Path
    folder: Path
    again: tuple[str, ...]

    def __call__(self) -> list[str]:
        study = Study.load(self.study_file, trust=True)  # the command that made the job has checked it
        study.import_files()
        return run_steps(study, self.folder, self.again)
