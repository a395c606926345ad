"""How the report's figures look: one colour and marker per variant, text as paths, fit for light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Look", "bare_axes", "inlined", "legend", "looks", "new_figure", "styled", "to_svg"]

WIDTH_IN = 4.1  # about as wide as a phone, so that nothing shrinks below reading size there
_BASELINE_COLOR = "#7a7a7a"
# Okabe and Ito, "Color Universal Design", 2008, without black and yellow, and two more that stay apart from them.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fb5", "#9c6b30")
_MARKERS = ("s", "^", "D", "v", "P", "X", "p", "h", "<", ">", "*")
_DASHES = ("-", "--", ":", "-.")
# Text and lines take this colour; `inlined` turns it into the page's own, so that dark pages work.
_INK = "#30343a"
_RC = {
    "font.size": 9.5,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "sn2fpn",
    "text.parse_math": False,  # a "$" in a name is a dollar
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Look:
    """How a variant is drawn, everywhere."""

    color: str
    marker: str
    dash: str


def looks(variants: Sequence[str], baseline: str) -> dict[str, Look]:
    """A look per variant: grey circles for the baseline; beyond 8 others, colours return with other dashes."""
    chosen = {}
    others = [name for name in variants if name != baseline]
    for i, name in enumerate(others):
        chosen[name] = Look(
            _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(_COLORS) % len(_DASHES)]
        )
    return {name: chosen.get(name, Look(_BASELINE_COLOR, "o", "-")) for name in variants}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: the function draws in the report's style."""
    return matplotlib.rc_context(_RC)(draw)


def new_figure(height_in: float) -> tuple[Figure, Axes]:
    """A figure with one panel."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, bare_axes(figure.add_subplot())


def bare_axes(axes: Axes) -> Axes:
    """Without a frame above and to the right, with a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.22, linewidth=0.6, color=_INK)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    return axes


def legend(figure: Figure, axes: Axes, entries: int) -> None:
    """Variants above the panel, in as few rows as fit."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max((len(label) for label in labels), default=1)
    columns = max(1, min(entries, int(10 * figure.get_figwidth() / (longest + 5))))
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        borderpad=0.1,
    )


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document on white: text as paths, no date, the same bytes for the same data."""
    figure.patch.set_facecolor("white")
    out = io.StringIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    return svg[svg.index("<svg") :]


def inlined(svg: str, name: str, title: str) -> Markup:
    """The SVG as an element of a page: transparent, in the page's ink, its ids apart from other figures'.

    Args:
        name: letters, digits, "-" and "_"; different for each figure of a page.
        title: what it shows, for screen readers.
    """
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r'(<g id="[^"]*patch_1">\s*<path [^>]*style=")fill: #ffffff', r"\1fill: none", svg, count=1)
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg, count=1, flags=re.DOTALL)  # it would reach the whole page
    svg = svg.replace(_INK, "currentColor")
    size = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', svg)
    assert size, "matplotlib writes a viewBox"
    head = f'<svg class="plot" role="img" aria-label="{escape(title)}" viewBox="0 0 {size[1]} {size[2]}">'
    return Markup(head + svg[svg.index(">") + 1 :])
