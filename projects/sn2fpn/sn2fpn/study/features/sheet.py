"""A sheet that shows one image in several models: energy, principal components and what fusion adds at each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...atomic import atomic_write
from .view import LevelView, View, align, to_rgb

__all__ = ["draw_views"]

# All lengths are in inches.
_PANEL = 1.7  # width of a map
_GAP = 0.06
_MODEL_GAP = 0.22
_LEFT = 0.5  # width of the levels' names
_TITLE = 0.4  # height of the sheet's title
_HEAD = 0.95  # height of a block's heading and of its columns' titles
_MIN_WIDTH = 8.2  # the lines of notes need this width
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
    sheet = _Sheet(list(views), first.image.shape, sum(len(chosen) for _, chosen in blocks), len(blocks), title)
    for block, chosen in blocks:
        sheet.head(block)
        for row in chosen:
            sheet.row(first.image, [view.levels[row] for view in views.values()], block.columns)
    with atomic_write(path, "wb") as file:
        sheet.figure.savefig(file, format="png", dpi=_DPI)
    return Path(path)


class _Sheet:
    """A figure that is filled from the top to the bottom."""

    def __init__(self, names: Sequence[str], image_size: tuple[int, ...], rows: int, blocks: int, title: str) -> None:
        self.names = names
        self.height = _PANEL * image_size[0] / image_size[1]
        size = (
            max(self._left(2 * len(names)) + _LEFT / 2, _MIN_WIDTH),
            (_TITLE if title else 0) + blocks * _HEAD + rows * (self.height + _GAP) + _GAP,
        )
        self.figure = Figure(figsize=size, dpi=_DPI)
        self.y = size[1]  # top of the part that is still empty, measured from below
        if title:
            self._text(_LEFT, self.y - 0.25, title, fontsize=13, fontweight="bold")
            self.y -= _TITLE

    def head(self, block: _Block) -> None:
        """Add the heading of a block and, below it, the models' names, each above its two columns."""
        self.y -= _HEAD
        self._text(_LEFT, self.y + 0.62, block.title, fontsize=12, fontweight="bold")
        right = self._left(2 * len(self.names)) - _MODEL_GAP
        self._text(_LEFT, self.y + 0.42, block.note, fontsize=9, color="0.35")
        for k, name in enumerate(self.names):
            x = (self._left(2 * k) + self._left(2 * k + 1) + _PANEL) / 2
            self._text(x, self.y + 0.22, name, ha="center", fontsize=10, fontweight="bold")
            for side, column in enumerate(block.columns):
                self._text(self._left(2 * k + side) + _PANEL / 2, self.y + 0.06, column.title, ha="center", fontsize=9)
        for k, column in enumerate(reversed(block.columns)):
            if column.range is not None:
                low, high = column.range
                axes = self._axes(right - (k + 1) * 1.35, self.y + 0.73, 1.1, 0.1)
                scale = ScalarMappable(Normalize(low, high), column.cmap)
                self.figure.colorbar(scale, cax=axes, orientation="horizontal", ticks=[low, (low + high) / 2, high])
                axes.tick_params(labelsize=7, pad=1, length=2)

    def row(self, image: np.ndarray, levels: Sequence[LevelView], columns: Sequence[_Column]) -> None:
        """Add a row with the image and two panels per model."""
        self.y -= self.height + _GAP
        self._text(_LEFT - 0.1, self.y + self.height / 2, levels[0].name, ha="right", va="center", fontsize=12)
        axes = self._axes(_LEFT, self.y, _PANEL, self.height)
        size = image.shape[:2]
        axes.imshow(image, extent=(0, size[1], size[0], 0))
        _frame(axes, levels[0].boxes, size)
        arrays = [getattr(level, column.array) for level in levels for column in columns]
        if arrays[0].ndim == 3:
            arrays = [to_rgb(scores) for scores in align(arrays)]
        for k, values in enumerate(arrays):
            axes = self._axes(self._left(k), self.y, _PANEL, self.height)
            _draw_panel(axes, values, levels[k // 2], columns[k % 2])

    def _left(self, column: int) -> float:
        """Return the left edge of a panel; the image stands to the left of all panels."""
        return _LEFT + (column + 1) * (_PANEL + _GAP) + (column // 2 + 1) * _MODEL_GAP

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        w, h = self.figure.get_size_inches()
        axes = self.figure.add_axes((x / w, y / h, width / w, height / h))
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def _text(self, x: float, y: float, text: str, **style: object) -> None:
        w, h = self.figure.get_size_inches()
        self.figure.text(x / w, y / h, text, **style)


def _draw_panel(axes: Axes, values: np.ndarray, level: LevelView, column: _Column) -> None:
    rows, columns = values.shape[:2]
    low, high = column.range or np.percentile(values, _PERCENTILES)
    extent = (0, columns * level.stride, rows * level.stride, 0)
    axes.set_facecolor("0.8")  # shown where a value is not defined
    axes.imshow(values, column.cmap, vmin=low, vmax=high, extent=extent, interpolation="nearest", aspect="auto")
    _frame(axes, level.boxes, level.size)
    number = level.measures.get(column.measure)
    if number is not None:
        ground = dict(facecolor="black", alpha=0.65, pad=1.5, linewidth=0)
        text = f"{number:.2f}".replace("-", "−")
        axes.text(0.03, 0.04, text, transform=axes.transAxes, color="white", fontsize=8, bbox=ground)


def _frame(axes: Axes, boxes: np.ndarray, size: tuple[int, int]) -> None:
    """Draw frames that are visible on any background, and limit the view to the image."""
    for x1, y1, x2, y2 in boxes:
        for color, width in (("black", 2.4), ("white", 1.2)):
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width))
    axes.set_xlim(0, size[1])
    axes.set_ylim(size[0], 0)
