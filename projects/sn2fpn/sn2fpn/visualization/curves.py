"""Training curves, which are read from `metrics.json` and drawn into one PNG file."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import atomic_write
from ..errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_curves", "read_metrics"]

logger = logging.getLogger(__name__)

_FEW = 20  # points of a curve, each of which has a mark then
_LARGEST = float(np.finfo(np.float32).max)  # training computes with 32 bits

Series = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> iterations, values


def read_metrics(path: str | Path, with_nan: bool = False) -> Series:
    """Read the curves of all scalars in a `metrics.json`, which has one JSON object with an "iteration" per line.

    A resumed run repeats iterations, and the last line with a value counts. Incomplete lines, which a killed run may
    leave, are skipped with a warning. Values that are not finite numbers of 32 bits are left out.

    Args:
        path: the file.
        with_nan: whether to keep NaN, which is the score of an evaluation without a detection.

    Returns:
        {name: (iterations, values)}, both (N,) float64, with increasing iterations.

    Raises:
        UserError: the file is missing, or no line is a JSON object with an iteration.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; training writes metrics.json to its output folder")
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    points: dict[str, dict[float, float]] = {}
    broken = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            iteration = float(record["iteration"])
            if not abs(iteration) <= _LARGEST:
                raise ValueError("the iteration is not finite")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            broken.append(number)
            continue
        for name, value in record.items():
            if name == "iteration" or not isinstance(value, (int, float)):
                continue
            if abs(value) <= _LARGEST or (with_nan and math.isnan(value)):
                points.setdefault(name, {})[iteration] = float(value)
    if len(broken) == len(lines):
        raise UserError(
            f'{path}: expected one JSON object with an "iteration" per line, found none in {len(lines)} lines'
        )
    if broken:
        logger.warning(
            '%s: expected one JSON object with an "iteration" per line and left out %s %s',
            path,
            "line" if len(broken) == 1 else "lines",
            ", ".join(map(str, broken[:5])) + (" …" if len(broken) > 5 else ""),
        )
    curves = {}
    for name, values in points.items():
        iterations = np.array(sorted(values))
        curves[name] = iterations, np.array([values[i] for i in iterations])
    return curves


def plot_curves(metrics_json: str | Path, out_png: str | Path) -> Path:
    """Draw the losses, the learning rate and the average precision over the iterations.

    Losses are drawn twice, smoothed and (in a pale colour) as recorded. Panels without data are left out.

    Args:
        metrics_json: the log of a run.
        out_png: the file to write or replace.

    Returns:
        `out_png`.

    Raises:
        UserError: the log cannot be read (see `read_metrics`), or there is nothing to draw.
    """
    from matplotlib.figure import Figure  # every start of a training would wait for it
    from matplotlib.ticker import MaxNLocator

    series = read_metrics(metrics_json)
    panels = _panels(series)
    if not panels:
        raise UserError(f"{metrics_json}: there are no losses, learning rates or average precisions to draw")
    columns = min(2, len(panels))
    figure = Figure(figsize=(6.4 * columns, 4.0 * math.ceil(len(panels) / columns)), layout="constrained")
    last = max(iterations[-1] for _, curves, _, _ in panels for iterations, _ in curves.values())
    for position, (draw, curves, title, unit) in enumerate(panels, start=1):
        axes = figure.add_subplot(math.ceil(len(panels) / columns), columns, position)
        draw(axes, curves)
        axes.set_title(title)
        axes.set_xlabel("iteration")
        axes.set_ylabel(unit)
        axes.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize="small", loc="lower right" if draw is _scores else "best")
    with atomic_write(out_png, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    return Path(out_png)


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a centred window of a twentieth of the curve, which is cut off at the ends."""
    reach = max(len(values) // 40, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _panels(series: Series) -> list[tuple[Callable[[Axes, Series], None], Series, str, str]]:
    """Return the drawing function, the curves, the title and the unit of each panel that has data."""
    total = {n: c for n, c in series.items() if n in ("total_loss", "val/total_loss")}
    parts = {n: c for n, c in series.items() if n.startswith("loss_")}
    rate = {n: c for n, c in series.items() if n == "lr"}
    scores = {n: c for n, c in series.items() if n.split("/")[-1] in ("AP", "AP50", "AP75")}
    panels = (
        (_losses, total, "Total loss", "loss"),
        (_losses, parts, "Losses by part", "loss"),
        (_scores, scores, "Average precision", "%"),
        (_rate, rate, "Learning rate", "learning rate"),
    )
    return [panel for panel in panels if panel[1]]


def _losses(axes: Axes, curves: Series) -> None:
    for name, (iterations, values) in curves.items():
        if name.startswith("val/"):  # these are averages over a data set and need no smoothing
            axes.plot(iterations, values, marker="o", markersize=4, label=name)
            continue
        (line,) = axes.plot(iterations, smooth(values), linewidth=1.8, label=name, **_marks(values))
        axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.8)
    # A peak at the start must not determine the scale.
    values = np.concatenate([v for _, v in curves.values()])
    axes.set_ylim(0, 1.1 * max(np.percentile(values, 98), 1e-12))


def _scores(axes: Axes, curves: Series) -> None:
    for name, (iterations, values) in curves.items():
        axes.plot(iterations, values, marker="o", markersize=4, label=name)
    axes.set_ylim(0, 100)


def _rate(axes: Axes, curves: Series) -> None:
    for name, (iterations, values) in curves.items():
        axes.plot(iterations, values, label=name, **_marks(values))
    axes.set_ylim(bottom=0)


def _marks(values: np.ndarray) -> dict[str, Any]:
    """Return how to mark the points of a curve, without which a single one could not be seen."""
    return {"marker": "o", "markersize": 4} if len(values) < _FEW else {}
