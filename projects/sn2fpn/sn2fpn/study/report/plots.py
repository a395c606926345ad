"""Which figures a study's results give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from ..results import StudyResults
from ..statistics import Interval
from .comparison import interval
from .curves import plot_curves_over_seeds
from .figures import Point, plot_against_cost, plot_by_size, plot_class_differences
from .style import Look
from .tables import class_label

__all__ = ["Plot", "draw_plots"]

_SIZES = {"small": "s", "medium": "m", "large": "l"}


class Plot(NamedTuple):
    """A figure for a section of the report."""

    section: str  # "cost", "sizes", "curves" or "classes"
    name: str  # of its file
    title: str
    figure: Figure


def draw_plots(
    results: StudyResults, style: Mapping[str, Look], class_differences: Mapping[str, Mapping[str, Interval]]
) -> list[Plot]:
    """All figures for which there is something to draw; none for a study without a finished cell."""
    if not results.finished:
        return []
    return [
        *_against_costs(results, style),
        *_by_size(results, style),
        *_curves(results, style),
        *_by_class(results, style, class_differences),
    ]


def _against_costs(results: StudyResults, style: Mapping[str, Look]) -> list[Plot]:
    scores, plots = _points(results, results.headline), []
    label = f"{results.label(results.headline)} (%)"
    for name, title, read in (
        ("parameters", "parameters (million)", lambda v: results.parameters(v) / 1e6),
        ("latency", "inference time (ms per image)", results.latency_ms),
        ("gflops", "GFLOPs per image", results.gflops),
    ):
        costs = {variant: read(variant) for variant in scores if math.isfinite(read(variant))}
        if costs:
            plots.append(
                Plot(
                    "cost",
                    f"{results.headline.split('/')[-1]}_against_{name}",
                    f"{results.label(results.headline)} against {title.partition(' (')[0]}",
                    plot_against_cost(scores, costs, style, title, label),
                )
            )
    return plots


def _by_size(results: StudyResults, style: Mapping[str, Look]) -> list[Plot]:
    task = results.headline.rpartition("/")[0]
    scores = {size: _points(results, f"{task}/AP{letter}") for size, letter in _SIZES.items()}
    scores = {size: points for size, points in scores.items() if points}
    if not scores:
        return []
    label = results.label(f"{task}/AP")
    return [Plot("sizes", "AP_by_size", f"{label} by object size", plot_by_size(scores, style, f"{label} (%)"))]


def _curves(results: StudyResults, style: Mapping[str, Look]) -> list[Plot]:
    recorded = {cell.name: cell.curves() for cell in results.finished}
    plots = []
    for name, title, metric, smoothed in (
        ("loss", "Training loss", "total_loss", True),
        ("score", f"{results.label(results.headline)} during training", results.headline, False),
    ):
        curves = {}
        for variant in results.variants:
            seeds = [recorded[cell.name][metric] for cell in results.of(variant) if metric in recorded[cell.name]]
            if seeds:
                curves[variant] = seeds
        if any(len(iterations) > 1 for seeds in curves.values() for iterations, _ in seeds):  # one point is no curve
            label = "total loss" if smoothed else f"{results.label(results.headline)} (%)"
            plots.append(
                Plot("curves", f"training_{name}", title, plot_curves_over_seeds(curves, style, label, smoothed))
            )
    return plots


def _by_class(
    results: StudyResults, style: Mapping[str, Look], differences: Mapping[str, Mapping[str, Interval]]
) -> list[Plot]:
    if not differences:
        return []
    points = {name: {variant: _point(bounds) for variant, bounds in row.items()} for name, row in differences.items()}
    label = f"difference to {results.baseline} (points of {class_label(results)})"
    return [
        Plot(
            "classes",
            "class_differences",
            f"Difference to {results.baseline} by class",
            plot_class_differences(points, style, label),
        )
    ]


def _points(results: StudyResults, metric: str) -> dict[str, Point]:
    found = {name: interval(results, name, metric) for name in results.variants}
    return {name: _point(bounds) for name, bounds in found.items() if bounds is not None}


def _point(bounds: Interval) -> Point:
    return (bounds.mean, bounds.low, bounds.high) if bounds.n > 1 else (bounds.mean, math.nan, math.nan)
