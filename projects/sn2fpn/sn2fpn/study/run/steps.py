"""The steps after the cells: costs, speed, features and the report.

Each step is done once, and again when a cell has finished since or when its file has not all variants.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..files import read_json, with_nested_variants
from ..folder import CellFolder, trained_cells
from ..spec.study import Study
from . import STEP_NAMES

__all__ = ["STEPS", "StepsJob", "run_steps"]


def _costs(study: Study, folder: Path) -> None:
    from ..measure.cost import measure_costs

    measure_costs(study, folder)


def _speed(study: Study, folder: Path) -> None:
    from ..measure.speed import measure_speed

    measure_speed(study, folder)


def _features(study: Study, folder: Path) -> None:
    from ..features.examine import measure_study

    measure_study(study, folder)


def _report(study: Study, folder: Path) -> None:
    from ..report.writing import write_report

    write_report(folder, trust=study.trust)


_FILES = ("costs.json", "speed.json", "features.json", "report/report.md")
STEPS: dict[str, tuple[str, Callable[[Study, Path], None]]] = dict(
    zip(STEP_NAMES, zip(_FILES, (_costs, _speed, _features, _report)), strict=True)
)
"""Name -> (the file that the step writes, the function); in order, since the report reads what the others wrote. Their
modules are imported when they run, since drawings and statistics take seconds to import."""


def run_steps(study: Study, folder: Path, again: Collection[str] = ()) -> list[str]:
    """Do every step that is missing, out of date or named in `again`, and return those that failed.

    The report is also written again after any other step, after a change of the study file, and after a cell has failed
    or its folder was removed. A step that fails does not stop the others.
    """
    places = [CellFolder(folder, cell) for cell in study.cells]
    newest = _newest([place.result_file for place in places])
    changed = _newest([folder / "study.yaml", *(p for place in places for p in (place.failure, place.path.parent))])
    failed, done = [], False
    for name, (file, step) in STEPS.items():
        path = folder / file
        after = max(newest, changed) if name == "report" else newest
        fresh = path.is_file() and path.stat().st_mtime >= after and _has_all_variants(name, path, study, folder)
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


def _newest(paths: Iterable[Path]) -> float:
    """Return the time of the last change of those files and folders that exist, 0 without any."""
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def _has_all_variants(step: str, path: Path, study: Study, folder: Path) -> bool:
    """Return whether a step's file has every variant that it could have, which that of merged studies may not have."""
    if step not in ("costs", "speed", "features"):
        return True
    try:
        content = read_json(path)
        measured = content if step == "costs" else with_nested_variants(content).get("variants", {})
    except UserError:  # the step writes the broken file again
        return False
    missing = [variant for variant in study.variants if variant.name not in measured]
    if step == "features":  # which cannot be measured without trained weights
        missing = [v for v in missing if v.name in trained_cells(study, folder)]
    return not missing


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
