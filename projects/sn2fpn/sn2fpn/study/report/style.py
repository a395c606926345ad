"""The style of the report's plots: a look per variant, text as paths, and colours for light and dark pages."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.textpath import TextPath
from numpy.typing import ArrayLike

__all__ = [
    "Look",
    "draw_line",
    "inlined",
    "legend",
    "looks",
    "new_figure",
    "new_rows",
    "shortened",
    "spread_markers",
    "styled",
    "to_svg",
]

T = TypeVar("T")

_WIDTH_IN = 4.1  # about the width of a phone, so that text stays readable there
_BASELINE_COLOR = "#7a7a7a"
# Okabe and Ito, "Color Universal Design", 2008, without black and yellow, and two more colours that differ from them.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fb5", "#9c6b30")
# Nine markers beside eight colours make 72 pairs. The order keeps alike shapes, such as the three triangles, apart from
# each other where a colour comes again.
_MARKERS = ("s", "P", "v", "D", "X", ">", "d", "h", "^")
_DASHES = ("-", "--", ":", "-.")
_LEGEND_PT = 8.5
# The colour of text and lines. `inlined` replaces it by the text colour of the page, so that dark pages work.
_INK = "#30343a"
_RC = {
    "font.size": 9.5,
    "legend.fontsize": _LEGEND_PT,
    "svg.fonttype": "path",
    "svg.hashsalt": "sn2fpn",
    "text.parse_math": False,  # a "$" in a name is not mathematics
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Look:
    """How a variant is drawn in all plots. Colour and marker together tell it from all others."""

    color: str
    marker: str
    dash: str

    @property
    def mark(self) -> Markup:
        """The marker as an element of an HTML page."""
        style = MarkerStyle(self.marker)
        (outline,) = style.get_path().transformed(style.get_transform()).to_polygons()
        points = " ".join(f"{x:.3f},{-y:.3f}" for x, y in outline)
        shape = f'<polygon points="{points}" fill="{self.color}"/>'
        return Markup(f'<svg class="mark" viewBox="-.75 -.75 1.5 1.5" aria-hidden="true">{shape}</svg>')


def looks(variants: Sequence[str], baseline: str) -> dict[str, Look]:
    """Return a look per variant: gray circles for the baseline, and a colour with a marker for each other one.

    After 8 other variants, colours repeat with other markers and other dashes.
    """
    others = [name for name in variants if name != baseline]
    chosen = {name: Look(_BASELINE_COLOR, "o", "-") for name in variants}
    for i, name in enumerate(others):
        dash = _DASHES[i // len(_COLORS) % len(_DASHES)]
        chosen[name] = Look(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], dash)
    return chosen


def styled(draw: Callable[..., T]) -> Callable[..., T]:
    """Decorate a function so that it draws and writes figures in the report's style."""
    return matplotlib.rc_context(_RC)(draw)


def new_figure(height_in: float, x_label: str = "", y_label: str = "") -> tuple[Figure, Axes]:
    """Return a figure with one panel with labelled axes, no frame above and to the right, and a faint grid.

    The height is that without a legend.
    """
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.22, linewidth=0.6, color=_INK)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def new_rows(rows: Sequence[str], variants: int, x_label: str) -> tuple[Figure, Axes]:
    """Return a figure with one row per title, from top to bottom, which is high enough for all variants in each."""
    figure, axes = new_figure(0.6 + len(rows) * (0.085 * variants + 0.2), x_label)
    axes.set_yticks(range(len(rows)), [shortened(title) for title in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure, axes


def draw_line(
    axes: Axes, x: ArrayLike, y: ArrayLike, look: Look, label: str, marked: tuple[float, float] | None = None
) -> None:
    """Draw the line of a variant with its markers, at every point or where `spread_markers` says."""
    shape = {"color": look.color, "linestyle": look.dash, "linewidth": 1.6, "marker": look.marker, "markersize": 5}
    axes.plot(x, y, **shape, markeredgewidth=0, markevery=marked, label=label)


def spread_markers(line: int) -> tuple[float, float]:
    """Return where a line of many points has markers; those of neighbouring lines are not at the same places."""
    return 0.05 + 0.3 * (0.618 * line % 1), 0.3  # parts of the panel's diagonal


def legend(figure: Figure, axes: Axes) -> None:
    """Add the variants above the panel, row by row, in as few rows as fit, and enlarge the figure by their height."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [shortened(label, 44) for label in labels]
    handle, gap, spacing = 2.4, 1.2, 0.5  # in parts of the height of the letters
    widest = max(TextPath((0, 0), label, size=_LEGEND_PT).get_extents().width for label in labels)
    column_in = (widest + (handle + gap + 0.8) * _LEGEND_PT) / 72
    columns = max(1, min(len(labels), int(figure.get_figwidth() / column_in)))
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(figure.get_figheight() + rows * (1.2 + spacing) * _LEGEND_PT / 72)
    shape = {"frameon": False, "handlelength": handle, "columnspacing": gap, "labelspacing": spacing, "borderpad": 0.1}
    by_row = [i for column in range(columns) for i in range(column, len(labels), columns)]  # matplotlib fills columns
    handles, labels = [handles[i] for i in by_row], [labels[i] for i in by_row]
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, **shape)


def shortened(name: str, letters: int = 22) -> str:
    """Return the name without its middle if it is long."""
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-(letters // 2 - 1) :]}"


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document on white; the same data give the same bytes."""
    figure.patch.set_facecolor("white")
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", out.getvalue(), flags=re.DOTALL)
    return svg[svg.index("<svg") :]


def inlined(svg: str, prefix: str, title: str) -> Markup:
    """Return an SVG of `to_svg` as an element of a page: transparent, in the page's text colour, with ids of its own.

    The ids begin with the prefix, which no other figure of the page may have. The title is for screen readers.
    """
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r'(<g id="[^"]*patch_1">\s*<path [^>]*style=")fill: #ffffff', r"\1fill: none", svg, count=1)
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg, count=1, flags=re.DOTALL)  # it would style the whole page
    svg = svg.replace(_INK, "currentColor")
    size = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', svg)
    assert size, "matplotlib always writes a viewBox"
    head = f'<svg class="plot" role="img" aria-label="{escape(title)}" viewBox="0 0 {size[1]} {size[2]}">'
    return Markup(head + svg[svg.index(">") + 1 :])
