"""Train and evaluate one cell in this process, wherever the process runs."""

from __future__ import annotations

import logging
import math
import os
import socket
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...checkpoint.last import read_last
from ...command_line import train_command
from ...engine import environment, main
from ...errors import UserError
from ...locks import locked
from ...program import Interrupted
from ...visualization.curves import read_metrics
from ..files import read_json
from ..folder import CellFolder, State
from ..spec.fingerprint import data_fingerprint, fingerprint
from ..spec.own_code import check_code, own_code
from ..spec.study import Cell, Study

__all__ = ["run_cell"]

logger = logging.getLogger(__name__)
_INTERRUPTED = 128  # the exit codes above are those of a training that a signal has stopped, after it has saved


def run_cell(study: Study, cell: Cell, folder: Path, num_gpus: int = 1) -> State:
    """Train and evaluate a cell unless it is finished; wait while another process trains it.

    The state is FINISHED; FAILED, and the failure is in the cell's folder; or INTERRUPTED, and a checkpoint is saved.
    """
    place = CellFolder(folder, cell)
    try:
        with locked(place.lock):
            if not place.is_finished:
                _train(study, place, folder, num_gpus)
    except KeyboardInterrupt:
        return State.INTERRUPTED
    except Exception as e:
        failure = str(e) if isinstance(e, UserError) else traceback.format_exc()
        logger.error("%s", failure)
        place.save_failure(failure)
        return State.FAILED
    return State.FINISHED


def _train(study: Study, place: CellFolder, folder: Path, num_gpus: int) -> None:
    place.failure.unlink(missing_ok=True)  # of an earlier try
    study.import_files()
    arguments = study.training_arguments(place.cell, place.path, num_gpus)
    _save_identity(study, place, folder, arguments)
    try:
        code = main(["--debug", *arguments])  # with --debug, mistakes are raised instead of printed
    except SystemExit as e:  # a process that the training started has failed and logged the reason
        code = e.code
    if code > _INTERRUPTED:
        raise Interrupted(code - _INTERRUPTED)
    if code:
        raise UserError(_last_error(place.log) or f"training ended with exit code {code}; see {place.log}")
    place.save_result(_collect_result(study, place))


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line.split("ERROR: ", 1)[1] for line in reversed(lines) if "ERROR: " in line), "")


def _save_identity(study: Study, place: CellFolder, folder: Path, arguments: list[str]) -> None:
    """Write down what is needed to train the cell again, and what its training starts from.

    A UserError says that the data of the cell, or the code of it or of others, are not those of now.
    """
    cell, before, found, now = place.cell, place.identity(), environment(), _now()
    kept = before if read_last(place.path) else {"imports": own_code(study.imports)}  # without one it starts anew
    identity = _about(cell) | {
        "overrides": study.overrides(cell.variant, cell.seed),
        "command": [*train_command(), *arguments],
        "commit": found.pop("commit"),
        "versions": found,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": before.get("started", now),
        "tries": [*before.get("tries", []), now],
        "fingerprint": kept.get("fingerprint", {}),
    }
    identity |= {"imports": code} if (code := kept.get("imports")) else {}
    for key in ("commit", "versions"):
        if before and before[key] != identity[key]:
            change = (cell.name, key, before[key], identity[key])
            logger.warning("%s: %s was %s when the cell started, now it is %s", *change)
    if identity["fingerprint"]:
        _check_data(study, place, identity["fingerprint"])
    place.save_identity(identity)  # before the fingerprint, which takes a while, so that others see who trains the cell
    check_code(study, folder)  # again, because the runner may have started long ago
    if not identity["fingerprint"]:
        place.save_identity(identity | {"fingerprint": fingerprint(study.config(cell.variant, cell.seed))})


def _check_data(study: Study, place: CellFolder, before: Mapping[str, str]) -> None:
    """Raise a UserError if the data have changed since a cell was started."""
    now = data_fingerprint(study.config(place.cell.variant, place.cell.seed))
    if changed := [role for role, found in now.items() if before.get(role, found) != found]:
        raise UserError(
            f"{place.path}: the {' and the '.join(changed)} have changed since this cell was started; put the old "
            "files back, or delete the folder of the cell to train it again"
        )


def _collect_result(study: Study, place: CellFolder) -> dict[str, Any]:
    """Return the content of result.json; a UserError says that there was no evaluation on one of the test sets."""
    series = read_metrics(place.metrics, with_nan=True)
    test_sets = study.config(place.cell.variant, place.cell.seed).DATASETS.TEST
    iterations, seconds = series["time"]
    steps = iterations - [-1, *iterations[:-1]]  # interruptions do not count: every line has its own seconds per step
    memory = series.get("peak_memory_mib")
    stored = [place.predictions(name).with_name("results.json") for name in test_sets]
    return _about(place.cell) | {
        "engine": "native" if any(path.is_file() for path in stored) else "detectron2",
        "iterations": int(series["total_loss"][0][-1]) + 1,
        "train_seconds": round(float((steps * seconds).sum()), 3),
        "peak_memory_mib": None if memory is None else round(float(memory[1].max()), 1),
        "finished": _now(),
        "results": {
            name: read_json(path) or _logged_scores(series, f"{name}/" if len(test_sets) > 1 else "", name, place)
            for name, path in zip(test_sets, stored)
        },
    }


def _logged_scores(series: Any, prefix: str, test_set: str, place: CellFolder) -> dict[str, dict[str, float | None]]:
    """Return {task: {metric: score}} from metrics.json, the only file in which Detectron2 keeps them.

    A score is None, as in the native engine's results, where nothing was detected or there is no object.
    """
    scores: dict[str, dict[str, float | None]] = {}
    for key, (_, values) in series.items():
        task, _, metric = key.removeprefix(prefix).partition("/")
        if key.startswith(prefix) and task in ("bbox", "segm"):
            scores.setdefault(task, {})[metric] = None if math.isnan(values[-1]) else float(values[-1])
    if not scores:
        raise UserError(f"{place.path}: found no evaluation on {test_set}; DATASETS.TEST and TEST must ask for one")
    return scores


def _about(cell: Cell) -> dict[str, Any]:
    return {"variant": cell.variant.name, "axes": cell.variant.axes, "seed": cell.seed}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
