"""The style of the report's plots: a look per variant, text as paths, and colours for light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Look", "inlined", "legend", "looks", "new_figure", "styled", "to_svg"]

T = TypeVar("T")

_WIDTH_IN = 4.1  # about the width of a phone, so that text stays readable there
_BASELINE_COLOR = "#7a7a7a"
# Okabe and Ito, "Color Universal Design", 2008, without black and yellow, and two more colours that differ from them.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fb5", "#9c6b30")
_MARKERS = ("s", "^", "D", "v", "P", "X", "p", "h", "<", ">", "*")
_DASHES = ("-", "--", ":", "-.")
# The colour of text and lines. `inlined` replaces it by the text colour of the page, so that dark pages work.
_INK = "#30343a"
_RC = {
    "font.size": 9.5,
    "legend.fontsize": 8.5,
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
    """How a variant is drawn in all plots."""

    color: str
    marker: str
    dash: str


def looks(variants: Sequence[str], baseline: str) -> dict[str, Look]:
    """Return a look per variant: gray circles for the baseline; after 8 others, colours repeat with other dashes."""
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
    """Return a figure with one panel with labelled axes, no frame above and to the right, and a faint grid."""
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.22, linewidth=0.6, color=_INK)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def legend(figure: Figure, axes: Axes) -> None:
    """Add the variants above the panel, in as few rows as fit."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels), default=1)
    columns = max(1, min(len(labels), int(10 * figure.get_figwidth() / (longest + 5))))
    shape = {"frameon": False, "handlelength": 1.6, "columnspacing": 1.2, "borderpad": 0.1}
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, **shape)


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document on white; the same data give the same bytes."""
    figure.patch.set_facecolor("white")
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", out.getvalue(), flags=re.DOTALL)
    return svg[svg.index("<svg") :]


def inlined(svg: str, name: str, title: str) -> Markup:
    """Return an SVG of `to_svg` as an element of a page: transparent, in the page's text colour, with ids of its own.

    No other figure of the page may have the same name. The title is for screen readers.
    """
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r'(<g id="[^"]*patch_1">\s*<path [^>]*style=")fill: #ffffff', r"\1fill: none", svg, count=1)
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg, count=1, flags=re.DOTALL)  # it would style the whole page
    svg = svg.replace(_INK, "currentColor")
    size = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', svg)
    assert size, "matplotlib always writes a viewBox"
    head = f'<svg class="plot" role="img" aria-label="{escape(title)}" viewBox="0 0 {size[1]} {size[2]}">'
    return Markup(head + svg[svg.index(">") + 1 :])
