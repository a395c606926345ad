"""The plots of curves: losses and scores over training, and scores against tuned values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from ...visualization.curves import Series, smooth
from ..measure.results import StudyResults
from ..spec.study import Cell
from .content import Plot
from .style import Look, draw_line, legend, new_figure, shortened, spread_markers, styled, to_svg

__all__ = ["curve_plots", "tuning_plots"]

Looks = Mapping[str, Look]
"""variant -> how it is drawn"""
Curve = tuple[np.ndarray, np.ndarray]
"""iterations and values, (N,) each, with increasing iterations"""


@styled
def curve_plots(results: StudyResults, style: Looks) -> list[Plot]:
    """Plot the loss, its difference to the baseline's, and the headline over training, where several were recorded."""
    recorded = {cell.cell: cell.curves() for cell in results.finished}
    headline, plots = results.label(results.headline), []
    for name, title, label, metric in (
        ("loss", "Training loss", "total loss", "total_loss"),
        ("score", f"{headline} during training", f"{headline} (%)", results.headline),
    ):
        curves = {
            variant: [recorded[c.cell][metric] for c in results.of(variant) if metric in recorded[c.cell]]
            for variant in results.variants
        }
        if any(len(iterations) > 1 for seeds in curves.values() for iterations, _ in seeds):
            figure, axes = new_figure(3.3, "iteration", label)
            _draw_curves(axes, {v: seeds for v, seeds in curves.items() if seeds}, style, metric == "total_loss")
            legend(figure, axes)
            plots.append(Plot(f"training_{name}", title, to_svg(figure)))
        if metric == "total_loss" and (differences := _differences(results, recorded)):
            plots.append(_difference_plot(results, differences, style))
    return plots


def _differences(results: StudyResults, recorded: Mapping[Cell, Series]) -> dict[str, list[Curve]]:
    """Return each variant's loss minus the baseline's by seed."""
    base = {
        cell.seed: curve for cell in results.of(results.baseline) if (curve := recorded[cell.cell].get("total_loss"))
    }
    found: dict[str, list[Curve]] = {}
    for cell in results.finished:
        curve = recorded[cell.cell].get("total_loss")
        if cell.variant != results.baseline and cell.seed in base and curve and len(curve[0]) > 1:
            at, (ours, theirs) = _aligned([curve, base[cell.seed]])
            found.setdefault(cell.variant, []).append((at, ours - theirs))
    return found


def _difference_plot(results: StudyResults, differences: Mapping[str, Sequence[Curve]], style: Looks) -> Plot:
    name = shortened(results.baseline)
    figure, axes = new_figure(3.0, "iteration", f"total loss − that of {name}")
    axes.axhline(0, linewidth=1.0, color=style[results.baseline].color)
    lowest, highest = [], []
    for i, (variant, seeds) in enumerate(differences.items()):
        values = _draw_curve(axes, i, variant, [(x, smooth(y)) for x, y in seeds], style)
        lowest.append(float(np.percentile(values, 1)))
        highest.append(float(np.percentile(values, 99)))
    room = 0.15 * (max(highest) - min(lowest)) or 1.0
    axes.set_ylim(min(*lowest, 0) - room, max(*highest, 0) + room)
    axes.set_xlim(left=0)
    legend(figure, axes)
    return Plot("loss_difference", f"Training loss minus that of {results.baseline}, paired by seed", to_svg(figure))


@styled
def tuning_plots(results: StudyResults, style: Looks) -> list[Plot]:
    """Plot the scores on the tuning sets against the values that were tried, if one key with numbers was tuned."""
    tune, label = results.study.tune, results.label(results.tuning_metric)
    if len(tune) != 1 or not all(isinstance(v, (int, float)) and v > 0 for v in next(iter(tune.values()))):
        return []
    ((key, tried),) = tune.items()
    figure, axes = new_figure(3.0, key, f"{label} (%)")
    for choice in results.tuning:
        points = sorted((float(name.partition("=")[2]), score) for name, score in choice.scores.items())
        draw_line(axes, *zip(*points), style[choice.variant], choice.variant)
    axes.set_xscale("log")
    axes.set_xticks(sorted(tried), [f"{value:g}" for value in sorted(tried)])
    axes.set_xticks([], minor=True)
    legend(figure, axes)
    return [Plot("tuning", f"{label} on the tuning data against {key}", to_svg(figure))]


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[Curve]], style: Looks, smoothed: bool) -> None:
    """Draw each variant's mean over seeds as a line, in a band from its lowest to its highest seed.

    Noisy losses are smoothed over a twentieth of the curve, the spikes at the start are cut off, the axis begins near
    the lowest loss, and a few places of the line have the variant's marker. Otherwise every point is marked, since a
    run has few evaluations. Of curves with different lengths the shared part is shown.
    """
    lowest: list[float] = []
    highest: list[float] = []
    for i, (name, seeds) in enumerate(curves.items()):
        curves_of = [(x, smooth(y) if smoothed else y) for x, y in seeds]
        values = _draw_curve(axes, i if smoothed else None, name, curves_of, style)
        lowest.append(float(values.min()))
        highest.append(float(np.percentile(values, 97)))
    axes.set_ylim(*(0.95 * min(lowest), 1.15 * max(*highest, 1e-12)) if smoothed else (0, None))
    axes.set_xlim(left=0)


def _draw_curve(axes: Axes, line: int | None, name: str, seeds: Sequence[Curve], style: Looks) -> np.ndarray:
    """Draw the mean of a variant's curves and their band; return (seeds, N) values.

    `line` is the number of the line, which decides where it has markers; None marks every point.
    """
    at, values = _aligned(seeds)
    look = style[name]
    draw_line(axes, at, values.mean(axis=0), look, name, None if line is None else spread_markers(line))
    if len(values) > 1:
        axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=look.color, alpha=0.18, linewidth=0)
    return values


def _aligned(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) iterations of the first curve that all curves reach, and (seeds, N) values at them."""
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    at = curves[0][0]
    at = at[(at >= start) & (at <= end)]
    return at, np.stack([np.interp(at, x, y) for x, y in curves])
