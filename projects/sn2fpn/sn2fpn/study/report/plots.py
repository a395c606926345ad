"""The plots that a study's results allow, as SVG documents."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..measure.results import StudyResults
from ..measure.statistics import Interval
from .charts import plot_against_cost, plot_by_size, plot_class_differences, plot_curves
from .comparison import interval
from .content import Plot
from .style import Look, to_svg
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
