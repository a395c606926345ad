"""A pyramid's graph as an SVG picture: a row per level, coarse on top, and time from left to right.

A block stands right of what it reads from its own level, and not left of what it reads from other levels, so that a
pass from level to level is a column. What happens on a link has a colour, which the line below the picture explains.
The graph itself is kept in the file's `<metadata>`.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from html import escape
from typing import Any, NamedTuple
from xml.etree import ElementTree

from .graph import Block, Link, PyramidGraph

__all__ = ["draw_pyramid", "graph_in_drawing"]

_COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#9a5cb4", "#b9770e", "#0e8c8c", "#7b4b2a")
_DASHES = ("", "", "", "6 3", "6 3", "2 3", "2 3")
_FILLS = {"input": "#dfe7f1", "output": "#dcefdc", "block": "#ffffff", "join": "#fff3d1"}
_INK = "#33383d"
_LINE, _LETTER, _GAP, _SPACE = 15, 6.6, 34, 46  # of text; between columns and rows
_FONT = "font-family='Helvetica, Arial, sans-serif' font-size='12'"


class _Box(NamedTuple):
    x: float  # centre
    y: float
    width: float
    height: float


def draw_pyramid(graph: PyramidGraph, title: str) -> str:
    """The picture as text.

    Args:
        graph: from `trace_pyramid`.
        title: said by screen readers and shown on hovering.
    """
    columns = _columns(graph)
    arcs = _arcs(graph, columns)
    boxes, width, rows = _place(graph, columns, arcs)
    colours = _colours(graph)
    bottom = max(row[2] for row in rows.values())
    legend, legend_height, legend_width = _legend(colours, bottom + 22)
    width, height = max(width, legend_width), bottom + (36 if colours else 0) + legend_height
    body = [_row(level, *band, width, i) for i, (level, band) in enumerate(rows.items())]
    body += _links(graph, boxes, arcs, colours)
    body += [_block(block, boxes[block.name]) for block in graph.blocks]
    body += legend
    data = escape(json.dumps(graph.to_dict(), ensure_ascii=False), quote=False)
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
            f"height='{height:.0f}' role='img' {_FONT} fill='{_INK}'>",
            f"<title>{escape(title)}</title>",
            f"<metadata>{data}</metadata>",
            "<rect width='100%' height='100%' fill='white'/>",
            *body,
            "</svg>",
            "",
        ]
    )


def graph_in_drawing(svg: str) -> dict[str, Any]:
    """The graph, as plain lists and dicts, that a picture of `draw_pyramid` was drawn from."""
    data = ElementTree.fromstring(svg).findtext("{http://www.w3.org/2000/svg}metadata")
    return json.loads(data or "{}")


# ---------------------------------------------------------------- where things stand


def _columns(graph: PyramidGraph) -> dict[str, int]:
    """Block -> column."""
    level = {b.name: b.level for b in graph.blocks}
    kind = {b.name: b.kind for b in graph.blocks}
    sources, readers = defaultdict(list), defaultdict(list)
    for link in graph.links:
        sources[link.target].append(link.source)
        readers[link.source].append(link.target)
    column: dict[str, int] = {}
    taken: dict[int, set[int]] = defaultdict(set)
    for block in graph.blocks:
        if block.kind == "output":
            continue
        x = 0 if block.kind == "input" else 1
        for source in sources[block.name]:
            x = max(x, column[source] + (level[source] == block.level))
        while x in taken[block.level]:
            x += 1
        column[block.name] = x
        taken[block.level].add(x)
    last = max(column.values())
    # What only outputs read stands in one column, when nothing of its row is in the way.
    leaves = [n for n in column if kind[n] != "input" and all(kind[r] == "output" for r in readers[n])]
    for name in leaves:
        if column[name] == max(taken[level[name]]):
            column[name] = max(column[n] for n in leaves)
    return column | {b.name: last + 1 for b in graph.blocks if b.kind == "output"}


def _arcs(graph: PyramidGraph, columns: dict[str, int]) -> dict[Link, int]:
    """Links along a row that something stands in the way of -> how high they pass over it."""
    level = {b.name: b.level for b in graph.blocks}
    arcs: dict[Link, int] = {}
    rows: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    spans = [(columns[k.target] - columns[k.source], k) for k in graph.links if level[k.source] == level[k.target]]
    for _, link in sorted(spans, key=lambda pair: pair[0]):
        row, start, end = level[link.source], columns[link.source], columns[link.target]
        between = [b for b in graph.blocks if b.level == row and start < columns[b.name] < end]
        if between:
            height = 1 + max((h for s, e, h in rows[row] if s < end and start < e), default=0)
            rows[row].append((start, end, height))
            arcs[link] = height
    return arcs


def _place(
    graph: PyramidGraph, columns: dict[str, int], arcs: dict[Link, int]
) -> tuple[dict[str, _Box], float, dict[int, tuple[float, float, float]]]:
    """Block -> box; the picture's width; level -> top, middle and bottom of its row."""
    sizes = {b.name: _size(b) for b in graph.blocks}
    level = {b.name: b.level for b in graph.blocks}
    widths: dict[int, float] = defaultdict(float)
    heights: dict[int, float] = defaultdict(float)
    for b in graph.blocks:
        widths[columns[b.name]] = max(widths[columns[b.name]], sizes[b.name][0])
        heights[b.level] = max(heights[b.level], sizes[b.name][1])
    x, centres = 78.0, {}
    for c in range(max(columns.values()) + 1):
        centres[c] = x + widths[c] / 2
        x += widths[c] + _GAP if widths[c] else 0
    rows, y = {}, 0.0
    for row in sorted(heights, reverse=True):
        over = max((h for link, h in arcs.items() if level[link.source] == row), default=0)
        top, middle = y, y + _SPACE / 2 + 14 * over + heights[row] / 2
        y = middle + heights[row] / 2 + _SPACE / 2
        rows[row] = top, middle, y
    boxes = {b.name: _Box(centres[columns[b.name]], rows[b.level][1], *sizes[b.name]) for b in graph.blocks}
    return boxes, x - _GAP + 24, rows


def _size(block: Block) -> tuple[float, float]:
    if _is_sign(block):
        return 24.0, 24.0
    return max(max(map(len, block.label)) * _LETTER + 14, 30), len(block.label) * _LINE + 9


def _is_sign(block: Block) -> bool:
    return block.kind == "join" and len(block.label) == 1 and len(block.label[0]) == 1


def _colours(graph: PyramidGraph) -> dict[tuple[str, tuple[str, ...]], tuple[str, str]]:
    """(direction, steps) -> colour and dashes; in every picture the first way up is red, the first way down blue."""
    level = {b.name: b.level for b in graph.blocks}
    keys = dict.fromkeys(
        (_direction(level[link.source] - level[link.target]), link.steps) for link in graph.links if link.steps
    )
    directions = ["up: ", "down: ", ""]
    reserved = {"up: ": 0, "down: ": 1}
    others = itertools.cycle(range(2, len(_COLOURS)))
    found = {}
    for key in sorted(keys, key=lambda key: directions.index(key[0])):
        i = reserved.pop(key[0]) if key[0] in reserved else next(others)
        found[key] = (_COLOURS[i], _DASHES[i])
    return found


def _direction(levels_up: int) -> str:
    return "up: " if levels_up > 0 else "down: " if levels_up < 0 else ""


# ---------------------------------------------------------------- the strokes


def _row(level: int, top: float, middle: float, bottom: float, width: float, i: int) -> str:
    shade = f"<rect y='{top:.1f}' width='{width:.1f}' height='{bottom - top:.1f}' fill='#f4f6f8'/>" if i % 2 else ""
    return f"{shade}<text x='12' y='{middle + 4:.1f}' fill='#6b7178'>stride {2**level}</text>"


def _block(block: Block, box: _Box) -> str:
    x, y = box.x - box.width / 2, box.y - box.height / 2
    style = f"fill='{_FILLS[block.kind]}' stroke='{_INK}'"
    radius = 12 if _is_sign(block) else 9 if block.kind in ("input", "output") else 4
    shape = f"<rect x='{x:.1f}' y='{y:.1f}' width='{box.width:.1f}' height='{box.height:.1f}' rx='{radius}' {style}/>"
    first = box.y + 4 - (len(block.label) - 1) * _LINE / 2
    lines = [
        f"<text x='{box.x:.1f}' y='{first + i * _LINE:.1f}' text-anchor='middle'>{escape(line)}</text>"
        for i, line in enumerate(block.label)
    ]
    return shape + "".join(lines)


def _links(
    graph: PyramidGraph,
    boxes: dict[str, _Box],
    arcs: dict[Link, int],
    colours: dict[tuple[str, tuple[str, ...]], tuple[str, str]],
) -> list[str]:
    level = {b.name: b.level for b in graph.blocks}
    ports = _ports(graph, boxes, level)
    out = []
    for i, link in enumerate(graph.links):
        a, b = boxes[link.source], boxes[link.target]
        up = level[link.source] - level[link.target]
        colour, dash = colours[_direction(up), link.steps] if link.steps else (_INK, "")
        if up == 0 and link in arcs:
            top = min(a.y - a.height / 2, b.y - b.height / 2) - 14 * arcs[link]
            x1, x2, y1, y2 = a.x + a.width / 4, b.x - b.width / 4, a.y - a.height / 2, b.y - b.height / 2
            path = f"M{x1:.1f} {y1:.1f} C{x1 + 12:.1f} {top:.1f} {x1 + 20:.1f} {top:.1f} {x1 + 34:.1f} {top:.1f} "
            path += f"L{x2 - 34:.1f} {top:.1f} C{x2 - 20:.1f} {top:.1f} {x2 - 12:.1f} {top:.1f} {x2:.1f} {y2:.1f}"
        elif up == 0:
            path = f"M{a.x + a.width / 2:.1f} {a.y:.1f} L{b.x - b.width / 2:.1f} {b.y:.1f}"
        else:
            down = 1 if up > 0 else -1  # a coarse map lies above a fine one
            x1, x2 = ports[i, "out"], ports[i, "in"]
            y1, y2 = a.y + down * a.height / 2, b.y - down * b.height / 2
            middle = (y1 + y2) / 2
            path = f"M{x1:.1f} {y1:.1f} C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        out.append(f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.5'{dashes}/>")
        out.append(_arrow_head(path, colour, up))
    return out


def _arrow_head(path: str, colour: str, up: int) -> str:
    """At the path's end; links enter from the left, from above or from below."""
    x, y = map(float, path.split(" ")[-2:]) if " L" not in path or "C" in path else _end(path)
    if up == 0 and "C" not in path:
        points = [(x, y), (x - 7, y - 3.5), (x - 7, y + 3.5)]
    else:
        d = -1 if up >= 0 else 1
        points = [(x, y), (x - 3.5, y + 7 * d), (x + 3.5, y + 7 * d)]
    return f"<polygon points='{' '.join(f'{px:.1f},{py:.1f}' for px, py in points)}' fill='{colour}'/>"


def _end(path: str) -> tuple[float, float]:
    x, y = path.rpartition("L")[2].split(" ")
    return float(x), float(y)


def _ports(graph: PyramidGraph, boxes: dict[str, _Box], level: dict[str, int]) -> dict[tuple[int, str], float]:
    """Where each link between levels leaves and enters: spread over the box's edge, in the order of the other ends."""
    groups: dict[tuple[str, int], list[tuple[float, int, str]]] = defaultdict(list)
    for i, link in enumerate(graph.links):
        up = level[link.source] - level[link.target]
        if up:
            edge = 1 if up > 0 else -1
            groups[link.source, edge].append((boxes[link.target].x, i, "out"))
            groups[link.target, -edge].append((boxes[link.source].x, i, "in"))
    ports = {}
    for (name, _), ends in groups.items():
        box, n = boxes[name], len(ends)
        step = min(12.0, (box.width - 8) / n)
        for k, (_, i, end) in enumerate(sorted(ends)):
            ports[i, end] = box.x + (k - (n - 1) / 2) * step
    return ports


def _legend(colours: dict[tuple[str, tuple[str, ...]], tuple[str, str]], y: float) -> tuple[list[str], float, float]:
    """The strokes, their height, and the width that they need."""
    out, x, right, height = [], 78.0, 0.0, 0.0
    for (direction, steps), (colour, dash) in colours.items():
        words = direction + ", then ".join(steps)
        needed = 34 + len(words) * _LETTER + 24
        if x + needed > 900 and x > 78:
            x, y, height = 78.0, y + 20, height + 20
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        out.append(f"<path d='M{x:.1f} {y - 4:.1f} h26' stroke='{colour}' stroke-width='2'{dashes}/>")
        out.append(f"<text x='{x + 32:.1f}' y='{y:.1f}'>{escape(words)}</text>")
        x += needed
        right = max(right, x)
    return out, height, right
