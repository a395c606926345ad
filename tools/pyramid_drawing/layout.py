"""The layout of a pyramid's drawing: one row per level with the coarsest on top, and time from left to right.

A block is to the right of the blocks of its own level that it reads, and not to the left of the blocks of other levels
that it reads. Therefore a pass from level to level is one column. (Graphviz' `dot` cannot arrange the levels as rows
and the passes as columns at the same time.)
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from .graph import Block, Link, PyramidGraph

__all__ = ["LETTER", "LINE", "Box", "Layout", "Row", "is_sign"]

LINE, LETTER = 15, 6.6  # height of a line of text, width of a letter
_GAP, _SPACE = 34, 46  # space between columns and between rows
_ARC = 14  # height of an arc that passes over blocks


class Box(NamedTuple):
    """The place of a block."""

    x: float  # centre
    y: float
    width: float
    height: float


class Row(NamedTuple):
    """The vertical place of a level."""

    top: float
    middle: float
    bottom: float


class Layout:
    """The places of all blocks and links of a graph.

    Attributes:
        boxes: the place of each block, by name.
        rows: the place of each level, from coarse to fine.
        width: the width of the drawing.
        arcs: the height of the arc of each link that passes over blocks of its own level.
        ports: where the i-th link leaves ("out") and enters ("in") its blocks horizontally, if their levels differ.
    """

    def __init__(self, graph: PyramidGraph) -> None:
        self.graph = graph
        self.level = {b.name: b.level for b in graph.blocks}
        self.columns = self._columns()
        self.arcs = self._arcs()
        self.rows = self._rows()
        centres, self.width = self._centres()
        self.boxes = {
            b.name: Box(centres[self.columns[b.name]], self.rows[b.level].middle, *_size(b)) for b in graph.blocks
        }
        self.ports = self._ports()

    def levels_up(self, link: Link) -> int:
        """Return how many levels a link leads towards finer maps; the number is negative towards coarser maps."""
        return self.level[link.source] - self.level[link.target]

    def _columns(self) -> dict[str, int]:
        kind = {b.name: b.kind for b in self.graph.blocks}
        sources, readers = defaultdict(list), defaultdict(list)
        for link in self.graph.links:
            sources[link.target].append(link.source)
            readers[link.source].append(link.target)
        column: dict[str, int] = {}
        taken: dict[int, set[int]] = defaultdict(set)
        for block in self.graph.blocks:
            if block.kind == "output":
                continue
            x = 0 if block.kind == "input" else 1
            for source in sources[block.name]:
                x = max(x, column[source] + (self.level[source] == block.level))
            while x in taken[block.level]:
                x += 1
            column[block.name] = x
            taken[block.level].add(x)
        last = max(column.values())
        # The blocks that only outputs read share one column if no other block of their row is to the right of them.
        leaves = [n for n in column if kind[n] != "input" and all(kind[r] == "output" for r in readers[n])]
        for name in leaves:
            if column[name] == max(taken[self.level[name]]):
                column[name] = max(column[n] for n in leaves)
        return column | {b.name: last + 1 for b in self.graph.blocks if b.kind == "output"}

    def _arcs(self) -> dict[Link, int]:
        """Count the levels of arcs: an arc is higher than the arcs below it."""
        arcs: dict[Link, int] = {}
        drawn: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # start, end and height of a level's arcs
        along = [link for link in self.graph.links if self.levels_up(link) == 0]
        for link in sorted(along, key=lambda k: self.columns[k.target] - self.columns[k.source]):
            row, start, end = self.level[link.source], self.columns[link.source], self.columns[link.target]
            if any(b.level == row and start < self.columns[b.name] < end for b in self.graph.blocks):
                arcs[link] = 1 + max((h for s, e, h in drawn[row] if s < end and start < e), default=0)
                drawn[row].append((start, end, arcs[link]))
        return arcs

    def _rows(self) -> dict[int, Row]:
        rows, y = {}, 0.0
        for level in sorted(set(self.level.values()), reverse=True):
            height = max(_size(b)[1] for b in self.graph.blocks if b.level == level)
            over = max((h for link, h in self.arcs.items() if self.level[link.source] == level), default=0)
            top, middle = y, y + _SPACE / 2 + _ARC * over + height / 2
            y = middle + height / 2 + _SPACE / 2
            rows[level] = Row(top, middle, y)
        return rows

    def _centres(self) -> tuple[dict[int, float], float]:
        """Return the centre of each column, and the width of the drawing."""
        widths: dict[int, float] = defaultdict(float)
        for b in self.graph.blocks:
            widths[self.columns[b.name]] = max(widths[self.columns[b.name]], _size(b)[0])
        x, centres = 78.0, {}
        for column in sorted(widths):
            centres[column] = x + widths[column] / 2
            x += widths[column] + _GAP
        return centres, x - _GAP + 24

    def _ports(self) -> dict[tuple[int, str], float]:
        """Spread the links between levels over the edges of their blocks, in the order of their other ends."""
        groups: dict[tuple[str, int], list[tuple[float, int, str]]] = defaultdict(list)
        for i, link in enumerate(self.graph.links):
            if up := self.levels_up(link):
                edge = 1 if up > 0 else -1
                groups[link.source, edge].append((self.boxes[link.target].x, i, "out"))
                groups[link.target, -edge].append((self.boxes[link.source].x, i, "in"))
        ports = {}
        for (name, _), ends in groups.items():
            box, n = self.boxes[name], len(ends)
            step = min(12.0, (box.width - 8) / n)
            for k, (_, i, end) in enumerate(sorted(ends)):
                ports[i, end] = box.x + (k - (n - 1) / 2) * step
        return ports

    def arc_top(self, link: Link) -> float:
        """Return the vertical place of the arc of a link."""
        a, b = self.boxes[link.source], self.boxes[link.target]
        return min(a.y - a.height / 2, b.y - b.height / 2) - _ARC * self.arcs[link]


def is_sign(block: Block) -> bool:
    """Return whether a block is a single sign, such as "+"."""
    return block.kind == "join" and len(block.label) == 1 and len(block.label[0]) == 1


def _size(block: Block) -> tuple[float, float]:
    if is_sign(block):
        return 24.0, 24.0
    return max(max(map(len, block.label)) * LETTER + 14, 30), len(block.label) * LINE + 9
