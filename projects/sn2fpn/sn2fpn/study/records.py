"""What a cell has left in its folder: its state, its progress, its result."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..visualization.curves import read_metrics
from .file import Cell, Study
from .locks import is_locked

__all__ = ["CellState", "collect_result", "differing_keys", "read_state"]

_TAIL_BYTES = 16384


@dataclass(frozen=True)
class CellState:
    """Attributes:
    state: "finished" | "running" | "failed" | "interrupted" (it has a checkpoint or has begun) | "waiting".
    iteration, eta_seconds: of the training, by the last line of metrics.json.
    note: the headline for a finished cell, who runs a running one, the error's first line of a failed one.
    """

    state: str
    iteration: int = 0
    eta_seconds: float | None = None
    note: str = ""


def read_state(folder: Path, headline: str = "bbox/AP") -> CellState:
    """The state of the cell in that folder, from its files and its lock alone."""
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        value = _headline(result["results"], headline)
        return CellState("finished", result["iterations"], note="" if value is None else f"{value:.1f}")
    if not folder.is_dir():
        return CellState("waiting")
    last = _last_line(folder / "metrics.json")
    iteration = last.get("iteration", -1) + 1
    if is_locked(folder / ".lock"):
        return CellState("running", iteration, last.get("eta_seconds"), _holder(folder))
    failure = folder / "failure.txt"
    if failure.is_file():
        lines = failure.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        return CellState("failed", iteration, note=lines[-1 if lines[0].startswith("Traceback") else 0])
    return CellState("interrupted" if (folder / "cell.json").is_file() else "waiting", iteration)


def _holder(folder: Path) -> str:
    try:
        cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    host = "" if cell.get("host") == socket.gethostname() else f"{cell.get('host')} "
    return f"{host}pid {cell.get('pid')}"


def _headline(results: dict[str, Any], metric: str) -> float | None:
    """The mean over test sets."""
    task, name = metric.split("/", 1)
    values = [tasks[task][name] for tasks in results.values() if tasks.get(task, {}).get(name) is not None]
    return sum(values) / len(values) if values else None


def _last_line(path: Path) -> dict[str, Any]:
    """The last whole line of training in a metrics.json; {} where there is none."""
    try:
        with path.open("rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - _TAIL_BYTES))
            lines = f.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "total_loss" in record:
            return record
    return {}


def collect_result(study: Study, cell: Cell, out: Path) -> dict[str, Any]:
    """A finished cell's `result.json`.

    Raises:
        UserError: there is no evaluation.
    """
    series = read_metrics(out / "metrics.json")
    cfg = study.config(cell.variant, cell.seed)
    results = {name: _results_of(out, name, len(cfg.DATASETS.TEST)) for name in cfg.DATASETS.TEST}
    memory = series.get("peak_memory_mib")
    return {
        "variant": cell.variant.name,
        "axes": cell.variant.axes,
        "seed": cell.seed,
        "engine": _engine(out),
        "iterations": int(series["total_loss"][0][-1]) + 1,
        "train_seconds": round(_train_seconds(series), 3),
        "peak_memory_mib": None if memory is None else round(float(memory[1].max()), 1),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "results": results,
    }


def _train_seconds(series: Any) -> float:
    """Time in training steps, whatever interruptions there were: each line's seconds per step x its steps."""
    iterations, seconds = series["time"]
    steps = iterations - [-1, *iterations[:-1]]
    return float((steps * seconds).sum())


def _engine(out: Path) -> str:
    """Which one it was: only the native one keeps results beside the predictions."""
    return "native" if list(out.glob("inference/*/results.json")) else "detectron2"


def _results_of(out: Path, name: str, sets: int) -> dict[str, dict[str, float | None]]:
    """`{"bbox": {"AP": …}}`; Detectron2 has them in metrics.json alone."""
    path = out / "inference" / name / "results.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    prefix = f"{name}/" if sets > 1 else ""
    results: dict[str, dict[str, float | None]] = {}
    for key, (_, values) in read_metrics(out / "metrics.json").items():
        task, _, metric = key.removeprefix(prefix).partition("/")
        if key.startswith(prefix) and task in ("bbox", "segm"):
            results.setdefault(task, {})[metric] = float(values[-1])
    if not results:
        raise UserError(f"{out}: no evaluation on {name} was found; DATASETS.TEST and TEST must give one")
    return results


def differing_keys(out: Path, study: Study, cell: Cell) -> dict[str, tuple[Any, Any]]:
    """Config key -> (value in the cell's folder, value in the study), where the cell was begun with other values."""
    path = out / "config.yaml"
    if not path.is_file():
        return {}
    stored = _leaves(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    wanted = _leaves(yaml.safe_load(study.config(cell.variant, cell.seed).dump()))
    keys = [key for key in wanted if key in stored and key != "OUTPUT_DIR"]
    return {key: (stored[key], wanted[key]) for key in keys if stored[key] != wanted[key]}


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
