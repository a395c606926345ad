"""The report's figures of scores: against cost, by object size, by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import Look, legend, new_figure, styled

__all__ = ["ClassDifference", "Point", "plot_against_cost", "plot_by_size", "plot_class_differences"]

_CLASSES = 24  # more rows than this are not readable; the table has them all

Point = tuple[float, float, float]  # mean, low, high; low and high NaN where there is no interval
ClassDifference = Mapping[str, Mapping[str, Point]]  # class -> variant -> difference to the baseline


@styled
def plot_against_cost(
    scores: Mapping[str, Point], costs: Mapping[str, float], style: Mapping[str, Look], x_label: str, y_label: str
) -> Figure:
    """Mean score with its confidence interval over a cost, a labelled point per variant."""
    figure, axes = new_figure(3.3)
    shown = [name for name in scores if not math.isnan(costs.get(name, math.nan))]
    for name in shown:
        mean, low, high = scores[name]
        if not math.isnan(low):
            axes.plot([costs[name]] * 2, [low, high], color=style[name].color, linewidth=1.3, alpha=0.75)
        axes.plot(costs[name], mean, style[name].marker, color=style[name].color, markersize=7, markeredgewidth=0)
    axes.margins(x=0.14, y=0.10)
    _percent_limits(axes)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _label_points(
        figure,
        axes,
        {name: (costs[name], scores[name][0]) for name in shown},
        [(costs[name], low, high) for name in shown for _, low, high in [scores[name]] if low == low],
        style,
    )
    return figure


@styled
def plot_by_size(scores: Mapping[str, Mapping[str, Point]], style: Mapping[str, Look], y_label: str) -> Figure:
    """Mean scores with confidence intervals for each object size, the variants side by side.

    Args:
        scores: {"small" …: {variant: point}}.
    """
    variants = list(dict.fromkeys(name for group in scores.values() for name in group))
    figure, axes = new_figure(3.3)
    step = min(0.16, 0.8 / max(len(variants), 1))
    for i, name in enumerate(variants):
        shift = (i - (len(variants) - 1) / 2) * step
        for position, group in enumerate(scores.values()):
            if name in group:
                _bar(axes, position + shift, group[name], style[name], name if position == 0 else None)
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set_xlim(-0.5, len(scores) - 0.5)
    axes.grid(visible=False, axis="x")
    _percent_limits(axes)
    axes.set_ylabel(y_label)
    legend(figure, axes, len(variants))
    return figure


@styled
def plot_class_differences(differences: ClassDifference, style: Mapping[str, Look], x_label: str) -> Figure:
    """Differences to the baseline for each class, a row each; of many classes those that change most."""
    strongest = sorted(differences, key=lambda c: -max((abs(p[0]) for p in differences[c].values()), default=0.0))
    kept = set(strongest[:_CLASSES])
    classes = [name for name in differences if name in kept]
    variants = list(dict.fromkeys(name for row in differences.values() for name in row))
    row_in = max(0.24, 0.085 * len(variants) + 0.1)
    figure, axes = new_figure(1.0 + row_in * len(classes))
    axes.axvline(0, linewidth=1.0, color=axes.spines["left"].get_edgecolor())
    step = min(0.2, 0.8 / max(len(variants), 1))
    for i, name in enumerate(variants):
        shift = (i - (len(variants) - 1) / 2) * step
        for row, class_name in enumerate(classes):
            if name in differences[class_name]:
                _bar(axes, row + shift, differences[class_name][name], style[name], name if row == 0 else None, True)
    axes.set_yticks(range(len(classes)), [_short(name) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    legend(figure, axes, len(variants))
    return figure


def _bar(axes: Axes, at: float, point: Point, look: Look, label: str | None, across: bool = False) -> None:
    """A mean with its interval, upright or across."""
    mean, low, high = point
    for x, y, kind in (([at, at], [low, high], "-"), ([at], [mean], look.marker)):
        if math.isnan(y[0]):
            continue
        marker = kind != "-"
        axes.plot(
            *((y, x) if across else (x, y)),
            kind,
            color=look.color,
            linewidth=1.3,
            alpha=1.0 if marker else 0.75,
            markersize=5.5,
            markeredgewidth=0,
            label=label if marker else None,
        )


def _percent_limits(axes: Axes) -> None:
    """An interval may leave 0 … 100 %, a score cannot: the axis stays where scores can be."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0) if low < 0 else low, min(high, 100.0) if high > 100 else high)


def _label_points(
    figure: Figure,
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    bars: Sequence[tuple[float, float, float]],
    style: Mapping[str, Look],
) -> None:
    """Write each name beside its point where it hides the least: other names, points, intervals."""
    figure.draw_without_rendering()  # settles the layout, so that data becomes pixels
    to_px = axes.transData.transform
    taken = [_around(to_px(point), 7, 7) for point in points.values()]
    taken += [
        (x - 2, low, x + 2, high)
        for x, low, high in ((to_px((x, low))[0], to_px((x, low))[1], to_px((x, high))[1]) for x, low, high in bars)
    ]
    inside = axes.get_window_extent()
    for name in sorted(points, key=lambda n: points[n]):
        text = axes.annotate(
            _short(name),
            points[name],
            xytext=(0, 0),
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=8.5,
            fontweight="bold",
        )
        extent = text.get_window_extent()
        half = extent.width / 2, extent.height / 2
        center = to_px(points[name])
        best, least = (0.0, 0.0), math.inf
        for rank, (dx, dy) in enumerate(_spots(*half)):
            box = _around((center[0] + dx, center[1] + dy), *half)
            outside = (
                max(inside.x0 - box[0], 0)
                + max(box[2] - inside.x1, 0)
                + max(inside.y0 - box[1], 0)
                + max(box[3] - inside.y1, 0)
            )
            cost = sum(_shared(box, other) for other in taken) + 200 * outside + 0.4 * rank * half[1]
            if cost < least:
                best, least = (dx, dy), cost
        text.set_position(best)
        taken.append(_around((center[0] + best[0], center[1] + best[1]), *half))
        if math.hypot(*best) > half[0] + 26:
            axes.annotate(
                "",
                points[name],
                xytext=best,
                textcoords="offset pixels",
                arrowprops={"arrowstyle": "-", "color": style[name].color, "linewidth": 0.6, "shrinkB": 4},
            )


def _spots(half_width: float, half_height: float) -> list[tuple[float, float]]:
    """Places of a label's middle around its point, near ones first, in pixels."""
    spots = []
    for distance in (9, 20, 34, 50):
        x, y = half_width + distance, half_height + distance
        spots += [(x, 0.0), (-x, 0.0), (x, y), (x, -y), (-x, y), (-x, -y), (0.0, y), (0.0, -y)]
    return spots


def _around(center: Sequence[float], half_width: float, half_height: float) -> tuple[float, float, float, float]:
    x, y = center
    return x - half_width, y - half_height, x + half_width, y + half_height


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _short(name: str, letters: int = 22) -> str:
    """Long names lose their middle."""
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-(letters // 2 - 1) :]}"
