"""Training curves as one PNG, drawn from `metrics.json` alone."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..atomic import atomic_write
from ..errors import UserError

__all__ = ["plot_curves", "read_metrics"]

logger = logging.getLogger(__name__)

Series = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> iterations, values


def read_metrics(path: str | Path) -> Series:
    """Every scalar of a `metrics.json` (one JSON object a line, each with its "iteration") as a curve.

    A run that was resumed repeats iterations: the last line with a value counts. A line torn by a kill is
    passed over with a warning. Values that are no finite numbers are left out.

    Returns:
        {name: (iterations, values)}, both (N,) float64, iterations increasing.

    Raises:
        UserError: the file is missing, or none of its lines is a JSON object with an iteration.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; training writes metrics.json into OUTPUT_DIR")
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    points: dict[str, dict[float, float]] = {}
    torn = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            iteration = float(record["iteration"])
        except (ValueError, KeyError, TypeError):
            torn.append(number)
            continue
        for name, value in record.items():
            if name != "iteration" and isinstance(value, (int, float)) and math.isfinite(value):
                points.setdefault(name, {})[iteration] = float(value)
    if len(torn) == len(lines):
        raise UserError(
            f'{path}: expected one JSON object with an "iteration" a line, found none in {len(lines)} lines'
        )
    if torn:
        logger.warning(
            '%s: line(s) %s are no JSON objects with an "iteration" and are left out',
            path,
            ", ".join(map(str, torn[:5])) + (" …" if len(torn) > 5 else ""),
        )
    curves = {}
    for name, values in points.items():
        iterations = np.array(sorted(values))
        curves[name] = iterations, np.array([values[i] for i in iterations])
    return curves


def plot_curves(metrics_json: str | Path, out_png: str | Path) -> Path:
    """Draw losses, learning rate and average precision over iterations.

    Losses are drawn twice: as recorded (faint) and smoothed. Panels without data are left out.

    Args:
        metrics_json: the log of a run.
        out_png: the picture; replaced in one step.

    Returns:
        `out_png`.

    Raises:
        UserError: see `read_metrics`; or there is nothing to draw yet.
    """
    series = read_metrics(metrics_json)
    total = {n: c for n, c in series.items() if n in ("total_loss", "val/total_loss")}
    parts = {n: c for n, c in series.items() if n.startswith("loss_")}
    rate = {n: c for n, c in series.items() if n == "lr"}
    scores = {n: c for n, c in series.items() if n.split("/")[-1] in ("AP", "AP50", "AP75")}
    panels = [
        (draw, curves, title, unit)
        for draw, curves, title, unit in (
            (_losses, total, "Total loss", "loss"),
            (_losses, parts, "Losses by part", "loss"),
            (_scores, scores, "Average precision", "%"),
            (_rate, rate, "Learning rate", "learning rate"),
        )
        if curves
    ]
    if not panels:
        raise UserError(f"{metrics_json}: holds no losses, learning rate or average precision to draw")
    columns = min(2, len(panels))
    figure = Figure(figsize=(6.4 * columns, 4.0 * math.ceil(len(panels) / columns)), layout="constrained")
    last = max(iterations[-1] for _, curves, _, _ in panels for iterations, _ in curves.values())
    for position, (draw, curves, title, unit) in enumerate(panels, start=1):
        axes = figure.add_subplot(math.ceil(len(panels) / columns), columns, position)
        draw(axes, curves)
        axes.set_title(title)
        axes.set_xlabel("iteration")
        axes.set_ylabel(unit)
        axes.set_xlim(0, 1.02 * max(last, 1))
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize="small", loc="lower right" if draw is _scores else "best")
    with atomic_write(out_png, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return Path(out_png)


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a twentieth of the curve, cut at the ends, so that nothing lags."""
    reach = max(len(values) // 40, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _losses(axes: Axes, curves: Series) -> None:
    for name, (iterations, values) in curves.items():
        if name.startswith("val/"):  # measured rarely, over a whole set: no noise to smooth
            axes.plot(iterations, values, marker="o", markersize=4, label=name)
            continue
        (line,) = axes.plot(iterations, smooth(values), linewidth=1.8, label=name)
        axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.8)
    # One spike at the start must not flatten everything after it.
    values = np.concatenate([v for _, v in curves.values()])
    axes.set_ylim(0, 1.1 * max(np.percentile(values, 98), 1e-12))


def _scores(axes: Axes, curves: Series) -> None:
    for name, (iterations, values) in curves.items():
        axes.plot(iterations, values, marker="o", markersize=4, label=name)
    axes.set_ylim(0, 100)


def _rate(axes: Axes, curves: Series) -> None:
    for name, (iterations, values) in curves.items():
        axes.plot(iterations, values, label=name)
    axes.set_ylim(bottom=0)
