"""The plots of scores: against cost, by object size and by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..measure.results import StudyResults
from ..measure.statistics import Interval
from .comparison import interval
from .content import Plot
from .style import Look, legend, new_figure, new_rows, shortened, styled, to_svg
from .tables import class_label

__all__ = ["class_plots", "cost_plots", "size_plots"]

_SIZES = {"small": "s", "medium": "m", "large": "l"}
_CLASSES = 24  # more rows are not readable, and the table shows all classes
_NAMES = 8  # more names do not find room beside their points, so that a legend has them

_ALIKE = 0.05  # costs that differ by less than this part are not worth a chart

Looks = Mapping[str, Look]
"""variant -> how it is drawn"""
Scores = Mapping[str, Interval]
"""variant -> mean score or difference with its interval"""


@styled
def cost_plots(results: StudyResults, style: Looks) -> list[Plot]:
    """Plot the headline against parameters, latency and GFLOPs, as far as they were measured and differ enough."""
    scores, label = _scores(results, results.headline), results.label(results.headline)
    plots = []
    for name, title, measure, unit in (
        ("parameters", "parameters (million)", "parameters", 1e6),
        ("latency", "inference time (ms per image)", "latency_ms", 1.0),
        ("gflops", "GFLOPs per image", "gflops", 1.0),
    ):
        costs = {variant: results.measured(variant)[measure] / unit for variant in scores}
        points = {variant: (cost, scores[variant]) for variant, cost in costs.items() if math.isfinite(cost)}
        if not points or _alike(cost for cost, _ in points.values()):
            continue
        figure, axes = new_figure(3.3, title, f"{label} (%)")
        for variant, (cost, score) in points.items():
            _draw_means(axes, [cost], [score], style[variant], variant)
        axes.margins(x=0.14, y=0.10)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, 100.0))  # an interval may leave these limits but a score cannot
        if len(points) > _NAMES:
            legend(figure, axes)
        else:
            _label_points(figure, axes, points, style)
        file = f"{results.headline.split('/')[-1]}_against_{name}"
        plots.append(Plot(file, f"{label} against {title.partition(' (')[0]}", to_svg(figure)))
    return plots


def _alike(costs: Iterable[float]) -> bool:
    """Return whether several costs differ so little that a chart would only enlarge the differences."""
    known = list(costs)
    return len(known) > 1 and max(known) < (1 + _ALIKE) * min(known)


@styled
def size_plots(results: StudyResults, style: Looks) -> list[Plot]:
    """Plot AP and AR from 0 on with a row per object size, as far as the task has such scores."""
    task = results.headline.rpartition("/")[0]
    plots = []
    for kind in ("AP", "AR"):
        scores = {size: _scores(results, f"{task}/{kind}{letter}") for size, letter in _SIZES.items()}
        scores = {size: of_size for size, of_size in scores.items() if of_size}
        if not scores:
            continue
        label = results.label(f"{task}/{kind}")
        figure, axes = new_rows(list(scores), len(_variants(scores)), f"{label} (%)")
        _draw_groups(axes, scores, style)
        axes.set_xlim(0, min(axes.get_xlim()[1], 100.0))
        legend(figure, axes)
        plots.append(Plot(f"{kind}_by_size", f"{label} by object size", to_svg(figure)))
    return plots


@styled
def class_plots(results: StudyResults, style: Looks, differences: Mapping[str, Scores]) -> list[Plot]:
    """Plot the differences to the baseline with a row per class, if there are any; of many classes, the largest."""
    if not differences:
        return []
    strongest = sorted(differences, key=lambda c: -max((abs(d.mean) for d in differences[c].values()), default=0.0))
    rows = {name: differences[name] for name in differences if name in strongest[:_CLASSES]}
    x_label = f"difference to {shortened(results.baseline)} (points of {class_label(results)})"
    figure, axes = new_rows(list(rows), len(_variants(rows)), x_label)
    axes.axvline(0, linewidth=1.0, color=axes.spines["left"].get_edgecolor())
    _draw_groups(axes, rows, style)
    legend(figure, axes)
    return [Plot("class_differences", f"Difference to {results.baseline} by class", to_svg(figure))]


def _scores(results: StudyResults, metric: str) -> dict[str, Interval]:
    found = {name: interval(results, name, metric) for name in results.variants}
    return {name: bounds for name, bounds in found.items() if bounds.n}


def _variants(groups: Mapping[str, Scores]) -> list[str]:
    return list(dict.fromkeys(name for group in groups.values() for name in group))


def _draw_groups(axes: Axes, groups: Mapping[str, Scores], style: Looks) -> None:
    """Draw means with intervals in the rows 0, 1, … of the groups."""
    variants = _variants(groups)
    step = min(0.2, 0.8 / len(variants))
    for i, name in enumerate(variants):
        found = {row: group[name] for row, group in enumerate(groups.values()) if name in group}
        at = [row + (i - (len(variants) - 1) / 2) * step for row in found]
        _draw_means(axes, at, list(found.values()), style[name], name, across=True)


def _draw_means(
    axes: Axes, at: Sequence[float], scores: Sequence[Interval], look: Look, label: str, across: bool = False
) -> None:
    """Draw means at some positions with their intervals, as far as these are known."""
    mean, low, high = np.array([(score.mean, score.low, score.high) for score in scores]).T
    x, y, error = (mean, at, "xerr") if across else (at, mean, "yerr")
    shape = {"fmt": look.marker, "color": look.color, "markersize": 6, "markeredgewidth": 0, "elinewidth": 1.2}
    axes.errorbar(x, y, **{error: (mean - low, high - mean)}, **shape, label=label)


def _label_points(figure: Figure, axes: Axes, points: Mapping[str, tuple[float, Interval]], style: Looks) -> None:
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
        text = axes.annotate(shortened(name), at[name], **place, fontsize=8.5, fontweight="bold")
        half = text.get_window_extent().width / 2, text.get_window_extent().height / 2
        offsets = _offsets(*half)
        boxes = [_around(to_px(at[name]) + offset, *half) for offset in offsets]
        costs = [
            sum(overlap.width * overlap.height for other in taken if (overlap := Bbox.intersection(box, other)))
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
