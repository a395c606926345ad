"""The picture of the benchmark: a panel of horizontal bars for each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sn2fpn.atomic import atomic_path
from sn2fpn.errors import UserError

__all__ = ["Bars", "draw"]

_ENDINGS = (".png", ".svg", ".pdf")
# Okabe and Ito, "Color Universal Design", 2008.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_COLUMNS = 2


@dataclass(frozen=True)
class Bars:
    """A panel of the picture.

    Attributes:
        title: what the panel shows.
        unit: the unit of the values.
        values: the length of each segment by the label of the bar and the name of the segment.
    """

    title: str
    unit: str
    values: dict[str, dict[str, float]]


def draw(panels: Sequence[Bars], path: Path) -> None:
    """Draw panels side by side.

    Raises:
        UserError: the name of the file has another ending than .png, .svg or .pdf.
    """
    if path.suffix not in _ENDINGS:
        raise UserError(f"--picture {path}: expected a name that ends with {', '.join(_ENDINGS)}")
    lines = -(-len(panels) // _COLUMNS)
    most = max((len(panel.values) for panel in panels), default=1)
    figure = Figure(figsize=(6.5 * _COLUMNS, max(1, lines) * (1.2 + 0.3 * most)), layout="constrained")
    for place, panel in enumerate(panels, 1):
        _draw_panel(figure.add_subplot(lines, _COLUMNS, place), panel)
    with atomic_path(path, ".part" + path.suffix) as temporary:
        figure.savefig(temporary, dpi=110)


def _draw_panel(axes: Axes, panel: Bars) -> None:
    names = list(dict.fromkeys(name for segments in panel.values.values() for name in segments))
    ends = [0.0] * len(panel.values)
    for i, name in enumerate(names):
        lengths = [segments.get(name, 0.0) for segments in panel.values.values()]
        axes.barh(list(panel.values), lengths, left=ends, label=name, color=_COLORS[i % len(_COLORS)])
        ends = [end + length for end, length in zip(ends, lengths)]
    for place, end in enumerate(ends):
        axes.annotate(f" {end:.3g}", (end, place), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.unit)
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) > 1:
        axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
