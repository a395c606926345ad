"""What follows the cells: costs, speed, features, the report. Each is made once, and again when the cells are newer."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .file import Study, cell_folder

__all__ = ["STEPS", "StepsJob", "run_steps"]


def _costs(study: Study, folder: Path) -> None:
    from .cost import measure_costs

    measure_costs(study, folder)


def _speed(study: Study, folder: Path) -> None:
    from .speed import measure_speed

    measure_speed(study, folder)


def _features(study: Study, folder: Path) -> None:
    from .features import measure_study

    measure_study(study, folder)


def _report(_study: Study, folder: Path) -> None:
    from .report import write_report

    write_report(folder)


STEPS: dict[str, tuple[str, Callable[[Study, Path], None]]] = {
    "costs": ("costs.json", _costs),
    "speed": ("speed.json", _speed),
    "features": ("features.json", _features),
    "report": ("report/report.md", _report),
}
"""Name -> (the file that it writes, the function), in order; the report reads what the others wrote."""


def run_steps(study: Study, folder: Path, again: Collection[str] = ()) -> list[str]:
    """Do what is missing, older than the cells, or named by `again`; returns the names of the steps that failed."""
    newest = max((p.stat().st_mtime for p in _results(study, folder)), default=0.0)
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
            print(f"error: {name} failed, the rest goes on; try again with --again {name}: {cause}", flush=True)
    return failed


def _results(study: Study, folder: Path) -> list[Path]:
    paths = [cell_folder(folder, cell) / "result.json" for cell in study.cells]
    return [path for path in paths if path.is_file()]


@dataclass
class StepsJob:
    """The steps as a job of its own, where the cells ran: speed is that of the cluster's machine."""

    study_file: Path
    folder: Path
    again: tuple[str, ...]

    def __call__(self) -> list[str]:
        from ..engine import import_files

        study = Study.load(self.study_file)
        import_files(study.imports, f"{study.path}: IMPORTS:")
        return run_steps(study, self.folder, self.again)
