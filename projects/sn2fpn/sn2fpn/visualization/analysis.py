"""Charts of what a detector does right and wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_analysis"]

_MOST = 20  # classes in the matrix
_BLUE = "#0072b2"


def plot_analysis(
    precision: np.ndarray,
    lost: Mapping[str, float],
    confusion: np.ndarray,
    names: Sequence[str],
    threshold: float | None,
    path: str | Path,
) -> Path:
    """Draw precision against recall, the AP50 that each kind of error costs, and which classes are confused.

    Args:
        precision: (R,) precision in percent at equally spaced recalls from 0 to 1.
        lost: points of AP50 by kind of error.
        confusion: (C + 1, C + 1) numbers by the class of the object and of the detection, the background last. With
            many classes, those with the most confusions are drawn.
        names: C + 1 names.
        threshold: the score from which on detections count in `confusion`; None if there are no detections.
        path: the PNG file to write or replace.

    Returns:
        `path`.
    """
    from matplotlib.figure import Figure  # every start of a training would wait for it

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    curve, bars, matrix = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    curve.plot(np.linspace(0, 100, len(precision)), precision, color=_BLUE, linewidth=1.8)
    curve.set(xlim=(0, 100), ylim=(0, 100), xlabel="recall (%)", ylabel="precision (%)")
    curve.set_title(f"Precision against recall at an IoU of 0.5 (AP50 {np.mean(precision):.1f})")
    curve.grid(alpha=0.3)
    bars.barh(list(lost), list(lost.values()), color=_BLUE)
    bars.set_xlim(0, max(1.0, 1.05 * max(lost.values())))
    bars.invert_yaxis()
    bars.set(xlabel="points of AP50", title="AP50 that each kind of error costs")
    bars.grid(axis="x", alpha=0.3)
    bars.set_axisbelow(True)
    _draw_matrix(matrix, confusion, names, threshold)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    return Path(path)


def _draw_matrix(axes: Axes, confusion: np.ndarray, names: Sequence[str], threshold: float | None) -> None:
    """Draw the shares of each class's objects. The row of the background has those of detections without an object."""
    shown = _most_confused(confusion)
    part = confusion[np.ix_(shown, shown)]
    totals = confusion[shown].sum(axis=1, keepdims=True)
    shares = np.divide(100 * part, totals, out=np.zeros(part.shape), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    labels = [names[i] for i in shown]
    tilted = {"rotation": 45, "ha": "right"} if len(shown) > 4 else {}
    axes.set_xticks(range(len(shown)), labels, parse_math=False, **tilted)  # "$" in a name begins no formula
    axes.set_yticks(range(len(shown)), labels, parse_math=False)
    if len(shown) <= 12:
        for (r, c), share in np.ndenumerate(shares):
            if r == c == len(shown) - 1:
                continue  # nobody counts where there is neither an object nor a detection
            text = f"{part[r, c]}" + (f"\n{share:.0f} %" if len(shown) <= 6 else "")
            axes.text(c, r, text, ha="center", va="center", color="white" if share > 55 else "black", fontsize=9)
    axes.set(xlabel="detected as", ylabel="object")
    more = "" if len(shown) == len(names) else f", the {len(shown) - 1} most confused classes"
    counted = "nothing is detected" if threshold is None else f"score of {threshold:.2f} or more"
    axes.set_title(f"Objects by what they are detected as\n({counted}{more})")


def _most_confused(confusion: np.ndarray) -> np.ndarray:
    """Return the positions of the classes to draw, in order, and that of the background."""
    last = len(confusion) - 1
    if last <= _MOST:
        return np.arange(last + 1)
    wrong = confusion - np.diag(np.diag(confusion))
    mistakes = (wrong[:last, :last].sum(axis=0) + wrong[:last, :last].sum(axis=1)).astype(float)
    return np.append(np.sort(np.argsort(-mistakes, kind="stable")[:_MOST]), last)
