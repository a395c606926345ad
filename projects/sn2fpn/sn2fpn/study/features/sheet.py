"""A sheet that shows one image in several models: energy, principal components and what fusion adds at each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from ...atomic import atomic_write
from .view import LevelView, View, align, to_rgb

__all__ = ["draw_views"]

_PANEL_IN = 1.8  # width of a map with the gap beside it
_HEAD_IN = 1.0  # height of a block's heading, titles and note
_BAR_IN = 0.2  # height of colour bars
_MIN_WIDTH_IN = 8.2  # the notes need this width
_DPI = 100
_PERCENTILES = (1, 99)


class _Column(NamedTuple):
    """One of the two columns that a model has in a block."""

    title: str
    array: str  # attribute of a `LevelView`, (H, W), or (H, W, 3) for scores of principal components
    measure: str = ""  # the number that is written into the panels
    cmap: str | None = None
    range: tuple[float, float] | None = None  # of the colour map; None scales each panel by its own values


class _Block(NamedTuple):
    """Rows of panels under a heading with a note."""

    title: str
    note: str
    columns: tuple[_Column, _Column]


_ENERGY = _Block(
    "Energy",
    "The norm over channels, scaled in each panel. The number is the localisation of the framed objects (0.5: chance).",
    (
        _Column("before", "energy_before", "localisation_before", "magma"),
        _Column("after", "energy_after", "localisation", "magma"),
    ),
)
_COLOURS = _Block(
    "Principal components",
    "The first three are shown as red, green and blue. Within a row, similar colours mean similar places.",
    (_Column("before", "scores_before"), _Column("after", "scores_after")),
)
_FUSION = _Block(
    "What fusion adds",
    "The share of coarser levels in the output, and its cosine with the rest. The numbers are over the whole image.",
    (
        _Column("coarse share", "share", "coarse_share", "viridis", (0.0, 1.0)),
        _Column("agreement", "cosine", "agreement", "RdBu_r", (-1.0, 1.0)),
    ),
)


def draw_views(views: Mapping[str, View], path: str | Path, title: str = "") -> Path:
    """Draw the levels of one image in several models side by side, and return the path of the PNG.

    The sheet has three blocks, each with a row per level and two columns per model: energy before and after fusion;
    principal components before and after; coarse share and agreement at each pixel. The frames show the objects whose
    size belongs to the level of the row.

    Args:
        views: Views of the same image, with the same levels, by the models' names.
        path: The PNG, which is replaced in one step.
        title: Title of the sheet.
    """
    first = next(iter(views.values()))
    rows = range(len(first.levels))
    fused = [row for row in rows if first.levels[row].share is not None]
    blocks = [(block, chosen) for block, chosen in ((_ENERGY, rows), (_COLOURS, rows), (_FUSION, fused)) if chosen]
    columns = 1.3 + 2 * len(views)  # the image and the levels' names, and two for each model
    width = max(_MIN_WIDTH_IN, columns * _PANEL_IN)
    panel = width / columns * first.image.shape[0] / first.image.shape[1]
    heights = [_HEAD_IN + len(chosen) * panel for _, chosen in blocks]
    heights[-1] += _BAR_IN * bool(fused)
    figure = Figure(figsize=(width, sum(heights) + 0.4 * bool(title)), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.04, wspace=0, hspace=0)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (block, chosen) in zip(parts, blocks):
        _draw_block(part, block, views, chosen)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
    return Path(path)


def _draw_block(part: SubFigure, block: _Block, views: Mapping[str, View], chosen: Sequence[int]) -> None:
    """Draw a block: a row per level with the image and two panels per model, and a note below."""
    part.suptitle(block.title, fontsize=12, fontweight="bold")
    part.supxlabel(block.note, fontsize=9, color="0.35")
    panels = part.subplots(len(chosen), 1 + 2 * len(views), squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    for row, position in zip(panels, chosen):
        levels = [view.levels[position] for view in views.values()]
        row[0].set_ylabel(levels[0].name, rotation=0, ha="right", va="center", fontsize=12)
        row[0].imshow(next(iter(views.values())).image)
        _frame(row[0], levels[0])
        arrays = [getattr(level, column.array) for level in levels for column in block.columns]
        if arrays[0].ndim == 3:
            arrays = [to_rgb(scores) for scores in align(arrays)]
        for k, values in enumerate(arrays):
            _draw_panel(row[1 + k], values, levels[k // 2], block.columns[k % 2])
    for k, axes in enumerate(panels[0, 1:]):
        axes.set_title(f"{list(views)[k // 2]}\n{block.columns[k % 2].title}", fontsize=9)
    for axes, column in zip(panels[-1, 1:], block.columns * len(views)):
        if column.range is not None:
            scale = ScalarMappable(Normalize(*column.range), column.cmap)
            ticks = (column.range[0], sum(column.range) / 2, column.range[1])
            bar = part.colorbar(scale, ax=axes, location="bottom", ticks=ticks, aspect=15, pad=0.03)
            bar.ax.tick_params(labelsize=7, pad=1, length=2)


def _draw_panel(axes: Axes, values: np.ndarray, level: LevelView, column: _Column) -> None:
    rows, columns = values.shape[:2]
    low, high = column.range or np.percentile(values, _PERCENTILES)
    extent = (0, columns * level.stride, rows * level.stride, 0)
    axes.set_facecolor("0.8")  # shown where a value is not defined
    axes.imshow(values, column.cmap, vmin=low, vmax=high, extent=extent, interpolation="nearest")
    _frame(axes, level)
    number = level.measures.get(column.measure)
    if number is not None:
        ground = dict(facecolor="black", alpha=0.65, pad=1.5, linewidth=0)
        text = f"{number:.2f}".replace("-", "−")
        axes.text(0.03, 0.04, text, transform=axes.transAxes, color="white", fontsize=8, bbox=ground)


def _frame(axes: Axes, level: LevelView) -> None:
    """Draw frames that are visible on any background around the level's objects, and limit the view to the image."""
    for x1, y1, x2, y2 in level.boxes:
        for color, width in (("black", 2.4), ("white", 1.2)):
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width))
    axes.set(xlim=(0, level.size[1]), ylim=(level.size[0], 0))
