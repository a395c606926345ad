"""The folder of one cell: its paths, its state, and the files that the study reads and writes in it.

cells/<variant>/seed<k>/
  config.yaml, log.txt, metrics.json, inference/, model_final.pth, …   written by the engine
  cell.json      the cell's identity: what is trained, from which weights and code, where, and how to do it again
  result.json    what a finished cell has measured; a cell is finished if and only if this file exists
  failure.txt    why the last try failed
  .lock          held by the process that trains the cell
"""

from __future__ import annotations

import json
import logging
import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..atomic import atomic_write
from ..config.yaml_limits import LimitedLoader
from ..errors import UserError
from ..locks import is_locked
from .files import check_form, read_json, write_json

if TYPE_CHECKING:
    from .spec.study import Cell, Study

__all__ = ["CellFolder", "State", "Status", "started_cells", "trained_cells"]

logger = logging.getLogger(__name__)
_IDENTITY = "cell.json"
_FORM_OF_IDENTITY = {"fingerprint": {...: str}, "imports": {...: str}}
_FORM_OF_RESULT = {
    "results": {...: {...: {...: float | None}}},  # test set, task, metric
    "iterations": int | None,
    "train_seconds": float | None,
    "peak_memory_mib": float | None,
}
_FORM_OF_CONFIGURATION = {"DATASETS": {"CUSTOM": list | None}, "TEST": {}}
_TAIL_BYTES = 16384


class State(str, Enum):
    """What has become of a cell."""

    WAITING = "waiting"  # it has not been started
    RUNNING = "running"  # a process trains it
    INTERRUPTED = "interrupted"  # it was started, and the next run continues it
    FAILED = "failed"
    FINISHED = "finished"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Status:
    """The state of a cell and how far it has come."""

    state: State
    iteration: int = 0  # training iterations that are logged or finished
    eta_seconds: float | None = None  # remaining training time of a running cell, as it was last logged
    train_seconds: float | None = None  # training time of a finished cell
    note: str = ""  # headline metric of a finished cell, process of a running one, error of a failed one


class CellFolder:
    """The folder of one cell, `cells/<variant>/seed<k>` in the study's folder."""

    def __init__(self, study_folder: str | Path, cell: Cell) -> None:
        self.cell = cell
        self.path = Path(study_folder) / "cells" / cell.name
        self.lock = self.path / ".lock"
        self.failure = self.path / "failure.txt"
        self.result_file = self.path / "result.json"  # its existence means that the cell is finished
        self.log = self.path / "log.txt"
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.json"
        self.weights = self.path / "model_final.pth"

    @property
    def is_finished(self) -> bool:
        return self.result_file.is_file()

    def predictions(self, test_set: str) -> Path:
        """Return the file that holds the detections on a test set."""
        return self.path / "inference" / test_set / "coco_instances_results.json"

    def configuration(self) -> dict[str, Any]:
        """Return the configuration that the cell was started with as plain values, {} for a cell that never started."""
        if not self.config.is_file():
            return {}
        try:
            content = yaml.load(self.config.read_text(encoding="utf-8"), LimitedLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
            raise UserError(f"{self.config}: cannot be read as YAML: {e}") from None
        if not isinstance(content, dict):
            raise UserError(f"{self.config}: expected a configuration, found {type(content).__name__}")
        check_form(content, _FORM_OF_CONFIGURATION, self.config)
        return content

    def identity(self) -> dict[str, Any]:
        """Return what the cell is and started from, {} for a cell that never started; UserError for a broken file."""
        return read_json(self.path / _IDENTITY, _FORM_OF_IDENTITY)

    def save_identity(self, identity: dict[str, Any]) -> None:
        write_json(self.path / _IDENTITY, identity)

    def result(self) -> dict[str, Any]:
        """Return what a finished cell has measured, {} for any other cell; UserError for a broken file."""
        result = read_json(self.result_file, _FORM_OF_RESULT)
        if self.is_finished and not result.get("results"):
            raise UserError(f"{self.result_file}: results: expected scores by test set, found none")
        for name in result.get("results", {}):
            if "/" in name or not name.isprintable() or not name.strip(" ."):
                raise UserError(f"{self.result_file}: results: {name!r} cannot be the name of a data set")
        return result

    def save_result(self, result: dict[str, Any]) -> None:
        """Make the cell a finished one."""
        self.failure.unlink(missing_ok=True)
        write_json(self.result_file, result)

    def save_failure(self, text: str) -> None:
        """Write down why the last try failed. On a full disk, for instance, it is logged."""
        try:
            with atomic_write(self.failure) as file:
                file.write(text.rstrip() + "\n")
        except UserError as e:
            logger.error("%s", e)

    def status(self, headline: str = "bbox/AP") -> Status:
        """Return the cell's status, which follows from its files and its lock alone; `headline` is "task/metric"."""
        if self.is_finished:
            result = self.result()
            task, name = headline.split("/", 1)
            scores = [tasks.get(task, {}).get(name) for tasks in result.get("results", {}).values()]
            note = ", ".join("–" if score is None else f"{score:.1f}" for score in scores)
            return Status(State.FINISHED, result.get("iterations", 0), None, result.get("train_seconds"), note)
        last = _last_training_line(self.metrics)
        iteration = last["iteration"] + 1 if last else 0
        if is_locked(self.lock):
            return Status(State.RUNNING, iteration, last.get("eta_seconds"), note=self._process())
        if self.failure.is_file():
            lines = self.failure.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
            return Status(State.FAILED, iteration, note=lines[-1 if lines[0].startswith("Traceback") else 0])
        started = (self.path / _IDENTITY).is_file()
        return Status(State.INTERRUPTED if started else State.WAITING, iteration)

    def _process(self) -> str:
        """Return "pid 7" or "host pid 7" for the process that trains the cell, "" while it is not known."""
        identity = self.identity()
        if not identity:
            return ""
        host = "" if identity.get("host") == socket.gethostname() else f"{identity.get('host')} "
        return f"{host}pid {identity.get('pid')}"


def started_cells(study_folder: Path) -> list[str]:
    """Return the sorted names of all cells that were ever started in a study's folder."""
    paths = [path.parent for path in study_folder.glob(f"cells/*/*/{_IDENTITY}")]
    return sorted(f"{path.parent.name}/{path.name}" for path in paths)


def _last_training_line(path: Path) -> dict[str, Any]:
    """Return the last complete line of metrics.json that comes from training, {} where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "total_loss" in record and isinstance(record.get("iteration"), int):
            return record
    return {}


def trained_cells(study: Study, folder: str | Path) -> dict[str, CellFolder]:
    """Return for each variant the cell whose weights stand for it where one model is enough, by the variant's name.

    They are those of the first seed with which every variant has weights. Where there is none, each variant has its own
    first seed with weights, since a study that goes on from an archive lacks the weights of earlier seeds. A variant
    without any weights is left out.
    """
    by_seed: dict[int, dict[str, CellFolder]] = {}
    first: dict[str, CellFolder] = {}
    for cell in study.cells:
        place = CellFolder(folder, cell)
        if place.weights.is_file():
            by_seed.setdefault(cell.seed, {})[cell.variant.name] = place
            first.setdefault(cell.variant.name, place)
    return next((found for found in by_seed.values() if len(found) == len(study.variants)), first)
