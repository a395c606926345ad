"""Training curves of a study: each variant's mean over seeds, in a band from its lowest to its highest seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ...visualization.curves import smooth
from .style import Look, legend, new_figure, styled

__all__ = ["Curve", "plot_curves_over_seeds"]

Curve = tuple[np.ndarray, np.ndarray]  # iterations, values; both (N,), iterations increasing


@styled
def plot_curves_over_seeds(
    curves: Mapping[str, Sequence[Curve]], style: Mapping[str, Look], y_label: str, smoothed: bool
) -> Figure:
    """One line and band per variant.

    Args:
        curves: {variant: a curve per seed}. Curves of different lengths (a run that goes on) are compared where
            all of a variant's have values.
        smoothed: for noisy losses, over a twentieth of the curve; the vertical axis then leaves out the first
            spikes. Otherwise points are marked: the few evaluations of a run.
    """
    figure, axes = new_figure(3.3)
    highest: list[float] = []
    for name, seeds in curves.items():
        at, values = _together([(x, smooth(y) if smoothed else y) for x, y in seeds])
        look = style[name]
        axes.plot(
            at,
            values.mean(axis=0),
            look.dash,
            color=look.color,
            linewidth=1.6,
            label=name,
            marker=None if smoothed else look.marker,
            markersize=5,
        )
        if len(values) > 1:
            axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=look.color, alpha=0.18, linewidth=0)
        highest.append(float(np.percentile(values, 97)))
    if smoothed:
        axes.set_ylim(0, 1.15 * max(max(highest), 1e-12))
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("iteration")
    axes.set_ylabel(y_label)
    legend(figure, axes, len(curves))
    return figure


def _together(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) iterations and (seeds, N) values: each curve at the first one's iterations that all reach."""
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    at = curves[0][0]
    at = at[(at >= start) & (at <= end)]
    return at, np.stack([np.interp(at, x, y) for x, y in curves])
