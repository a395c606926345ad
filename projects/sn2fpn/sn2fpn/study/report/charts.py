"""The plots that a study's results allow: scores against cost, by size and by class, and curves over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ...visualization.curves import smooth
from ..measure.results import StudyResults
from ..measure.statistics import Interval
from .comparison import interval
from .content import Plot
from .style import Look, legend, new_figure, styled, to_svg
from .tables import class_label

__all__ = ["class_plots", "cost_plots", "curve_plots", "size_plots"]

_SIZES = {"small": "s", "medium": "m", "large": "l"}


def cost_plots(results: StudyResults, style: Mapping[str, Look]) -> list[Plot]:
    """Return the headline against parameters, latency and GFLOPs, as far as they were measured."""
    scores, label = _scores(results, results.headline), results.label(results.headline)
    plots = []
    for name, title, read in (
        ("parameters", "parameters (million)", lambda v: results.parameters(v) / 1e6),
        ("latency", "inference time (ms per image)", results.latency_ms),
        ("gflops", "GFLOPs per image", results.gflops),
    ):
        costs = {variant: read(variant) for variant in scores if math.isfinite(read(variant))}
        if costs:
            chart = plot_against_cost(scores, costs, style, title, f"{label} (%)")
            file = f"{results.headline.split('/')[-1]}_against_{name}"
            plots.append(Plot(file, f"{label} against {title.partition(' (')[0]}", to_svg(chart)))
    return plots


def size_plots(results: StudyResults, style: Mapping[str, Look]) -> list[Plot]:
    """Return the scores by object size, if the metric has them."""
    task = results.headline.rpartition("/")[0]
    scores = {size: _scores(results, f"{task}/AP{letter}") for size, letter in _SIZES.items()}
    scores = {size: of_size for size, of_size in scores.items() if of_size}
    if not scores:
        return []
    label = results.label(f"{task}/AP")
    return [Plot("AP_by_size", f"{label} by object size", to_svg(plot_by_size(scores, style, f"{label} (%)")))]


def curve_plots(results: StudyResults, style: Mapping[str, Look]) -> list[Plot]:
    """Return the loss and the headline over training, if more than one point was recorded."""
    recorded = {cell.cell: cell.curves() for cell in results.finished}
    headline, plots = results.label(results.headline), []
    for name, title, label, metric, smoothed in (
        ("loss", "Training loss", "total loss", "total_loss", True),
        ("score", f"{headline} during training", f"{headline} (%)", results.headline, False),
    ):
        curves = {}
        for variant in results.variants:
            seeds = [recorded[c.cell][metric] for c in results.of(variant) if metric in recorded[c.cell]]
            if seeds:
                curves[variant] = seeds
        if any(len(iterations) > 1 for seeds in curves.values() for iterations, _ in seeds):
            plots.append(Plot(f"training_{name}", title, to_svg(plot_curves(curves, style, label, smoothed))))
    return plots


def class_plots(
    results: StudyResults, style: Mapping[str, Look], differences: Mapping[str, Mapping[str, Interval]]
) -> list[Plot]:
    """Return the differences to the baseline by class, if there are any."""
    if not differences:
        return []
    label = f"difference to {results.baseline} (points of {class_label(results)})"
    svg = to_svg(plot_class_differences(differences, style, label))
    return [Plot("class_differences", f"Difference to {results.baseline} by class", svg)]


def _scores(results: StudyResults, metric: str) -> dict[str, Interval]:
    found = {name: interval(results, name, metric) for name in results.variants}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


_CLASSES = 24  # more rows are not readable, and the table shows all classes

Scores = Mapping[str, Interval]
"""variant -> mean score or difference with its interval"""
Curve = tuple[np.ndarray, np.ndarray]
"""iterations and values, (N,) each, with increasing iterations"""


@styled
def plot_against_cost(
    scores: Scores, costs: Mapping[str, float], style: Mapping[str, Look], x_label: str, y_label: str
) -> Figure:
    """Plot mean scores with confidence intervals over a cost, with a labelled point per variant that has a cost."""
    figure, axes = new_figure(3.3)
    shown = {name: (costs[name], scores[name]) for name in scores if name in costs}
    for name, (x, score) in shown.items():
        if not math.isnan(score.low):
            axes.plot([x] * 2, [score.low, score.high], color=style[name].color, linewidth=1.3, alpha=0.75)
        axes.plot(x, score.mean, style[name].marker, color=style[name].color, markersize=7, markeredgewidth=0)
    axes.margins(x=0.14, y=0.10)
    _limit_to_percent(axes)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _label_points(figure, axes, shown, style)
    return figure


@styled
def plot_by_size(scores: Mapping[str, Scores], style: Mapping[str, Look], y_label: str) -> Figure:
    """Plot the mean scores of each object size, {"small": scores, …}, with the variants side by side."""
    figure, axes = new_figure(3.3)
    variants = _variants(scores)
    _draw_groups(axes, scores, variants, style, widest=0.16)
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set_xlim(-0.5, len(scores) - 0.5)
    axes.grid(visible=False, axis="x")
    _limit_to_percent(axes)
    axes.set_ylabel(y_label)
    legend(figure, axes, len(variants))
    return figure


@styled
def plot_class_differences(differences: Mapping[str, Scores], style: Mapping[str, Look], x_label: str) -> Figure:
    """Plot the differences to the baseline with a row per class; of many classes, those that change most."""
    strongest = sorted(differences, key=lambda c: -max((abs(d.mean) for d in differences[c].values()), default=0.0))
    rows = {name: differences[name] for name in differences if name in strongest[:_CLASSES]}
    variants = _variants(rows)
    figure, axes = new_figure(1.0 + max(0.24, 0.085 * len(variants) + 0.1) * len(rows))
    axes.axvline(0, linewidth=1.0, color=axes.spines["left"].get_edgecolor())
    _draw_groups(axes, rows, variants, style, widest=0.2, across=True)
    axes.set_yticks(range(len(rows)), [_shortened(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    legend(figure, axes, len(variants))
    return figure


@styled
def plot_curves(
    curves: Mapping[str, Sequence[Curve]], style: Mapping[str, Look], y_label: str, smoothed: bool
) -> Figure:
    """Plot each variant's mean over seeds as a line, in a band from its lowest to its highest seed.

    Noisy losses are smoothed over a twentieth of the curve, and the spikes at the start are cut off. Otherwise every
    point is marked, since a run has few evaluations. Of curves with different lengths the shared part is shown.
    """
    figure, axes = new_figure(3.3)
    highest: list[float] = []
    for name, seeds in curves.items():
        at, values = _aligned([(x, smooth(y) if smoothed else y) for x, y in seeds])
        look = style[name]
        marker = None if smoothed else look.marker
        line = {"color": look.color, "linewidth": 1.6, "marker": marker, "markersize": 5}
        axes.plot(at, values.mean(axis=0), look.dash, label=name, **line)
        if len(values) > 1:
            axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=look.color, alpha=0.18, linewidth=0)
        highest.append(float(np.percentile(values, 97)))
    axes.set_ylim(0, 1.15 * max(max(highest), 1e-12) if smoothed else None)
    axes.set_xlim(left=0)
    axes.set_xlabel("iteration")
    axes.set_ylabel(y_label)
    legend(figure, axes, len(curves))
    return figure


def _aligned(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) iterations of the first curve that all curves reach, and (seeds, N) values at them."""
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    at = curves[0][0]
    at = at[(at >= start) & (at <= end)]
    return at, np.stack([np.interp(at, x, y) for x, y in curves])


def _variants(groups: Mapping[str, Scores]) -> list[str]:
    return list(dict.fromkeys(name for group in groups.values() for name in group))


def _draw_groups(
    axes: Axes,
    groups: Mapping[str, Scores],
    variants: Sequence[str],
    style: Mapping[str, Look],
    widest: float,
    across: bool = False,
) -> None:
    """Draw means with intervals around the positions 0, 1, … of the groups, upright or across."""
    step = min(widest, 0.8 / max(len(variants), 1))
    for i, name in enumerate(variants):
        shift, look, label = (i - (len(variants) - 1) / 2) * step, style[name], name
        for position, group in enumerate(groups.values()):
            if name not in group:
                continue
            at, score = position + shift, group[name]
            bar, point = ([at, at], [score.low, score.high]), ([at], [score.mean])
            if not math.isnan(score.low):
                axes.plot(*(bar[::-1] if across else bar), "-", color=look.color, linewidth=1.3, alpha=0.75)
            marker = {"color": look.color, "markersize": 5.5, "markeredgewidth": 0, "label": label}
            axes.plot(*(point[::-1] if across else point), look.marker, **marker)
            label = None  # the legend names each variant once


def _limit_to_percent(axes: Axes) -> None:
    """Limit the vertical axis to 0 … 100 %, which an interval may leave but a score cannot."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 100.0))


def _label_points(
    figure: Figure, axes: Axes, points: Mapping[str, tuple[float, Interval]], style: Mapping[str, Look]
) -> None:
    """Write each name beside its point where it covers least of other names, points and intervals."""
    figure.draw_without_rendering()  # settles the layout, so that data can be converted to pixels
    to_px = axes.transData.transform
    at = {name: (x, score.mean) for name, (x, score) in points.items()}
    taken = [_around(to_px(point), 7, 7) for point in at.values()]
    for x, score in points.values():
        if not math.isnan(score.low):
            taken.append(Bbox([to_px((x, score.low)), to_px((x, score.high))]).padded(2, 0))
    panel = axes.get_window_extent()
    for name in sorted(at, key=at.__getitem__):
        place = {"xytext": (0, 0), "textcoords": "offset pixels", "ha": "center", "va": "center"}
        text = axes.annotate(_shortened(name), at[name], **place, fontsize=8.5, fontweight="bold")
        half = text.get_window_extent().width / 2, text.get_window_extent().height / 2
        offsets = _offsets(*half)
        boxes = [_around(to_px(at[name]) + offset, *half) for offset in offsets]
        costs = [
            sum(_area(Bbox.intersection(box, other)) for other in taken)
            + 200 * sum(max(d, 0) for d in (*(panel.min - box.min), *(box.max - panel.max)))
            + 0.4 * rank * half[1]
            for rank, box in enumerate(boxes)
        ]
        best = costs.index(min(costs))
        text.set_position(offsets[best])
        taken.append(boxes[best])
        if math.hypot(*offsets[best]) > half[0] + 26:
            arrow = {"arrowstyle": "-", "color": style[name].color, "linewidth": 0.6, "shrinkB": 4}
            axes.annotate("", at[name], xytext=offsets[best], textcoords="offset pixels", arrowprops=arrow)


def _offsets(half_width: float, half_height: float) -> list[tuple[float, float]]:
    """Return places of the middle of a label around its point in pixels, near ones first."""
    offsets = []
    for distance in (9, 20, 34, 50):
        x, y = half_width + distance, half_height + distance
        offsets += [(x, 0.0), (-x, 0.0), (x, y), (x, -y), (-x, y), (-x, -y), (0.0, y), (0.0, -y)]
    return offsets


def _around(center: np.ndarray, half_width: float, half_height: float) -> Bbox:
    return Bbox([center, center]).padded(half_width, half_height)


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else box.width * box.height


def _shortened(name: str, letters: int = 22) -> str:
    """Return the name without its middle if it is long."""
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-(letters // 2 - 1) :]}"
