"""The drawing of a pyramid's graph as an SVG picture.

The steps that change a map on a link have a colour, which the legend below the drawing explains. The graph itself is
stored in the `<metadata>` of the picture.
"""

from __future__ import annotations

import itertools
import json
from html import escape
from typing import Any
from xml.etree import ElementTree

from .graph import Block, Link, PyramidGraph
from .layout import LETTER, LINE, Box, Layout, Row, is_sign

__all__ = ["draw_pyramid", "graph_in_drawing"]

_COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#9a5cb4", "#b9770e", "#0e8c8c", "#7b4b2a")
_DASHES = ("", "", "", "6 3", "6 3", "2 3", "2 3")
_FILLS = {"input": "#dfe7f1", "output": "#dcefdc", "block": "#ffffff", "join": "#fff3d1"}
_INK = "#33383d"
_FONT = "font-family='Helvetica, Arial, sans-serif' font-size='12'"

Change = tuple[str, tuple[str, ...]]  # the direction of a link ("up: ", "down: " or "") and its steps
Styles = dict[Change, tuple[str, str]]  # colour and dashes


def draw_pyramid(graph: PyramidGraph, title: str) -> str:
    """Draw a graph as SVG text.

    Args:
        graph: a graph from `trace_pyramid`.
        title: a title for screen readers, which is also shown on hovering.
    """
    layout = Layout(graph)
    styles = _styles(layout)
    bottom = max(row.bottom for row in layout.rows.values())
    legend, legend_height, legend_width = _legend(styles, bottom + 22)
    width, height = max(layout.width, legend_width), bottom + (36 if styles else 0) + legend_height
    body = [_row(level, row, width, i) for i, (level, row) in enumerate(layout.rows.items())]
    body += _links(layout, styles)
    body += [_block(block, layout.boxes[block.name]) for block in graph.blocks]
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
    """Read the graph, as plain lists and dicts, from a picture of `draw_pyramid`."""
    data = ElementTree.fromstring(svg).findtext("{http://www.w3.org/2000/svg}metadata")
    return json.loads(data or "{}")


def _change(layout: Layout, link: Link) -> Change:
    up = layout.levels_up(link)
    return "up: " if up > 0 else "down: " if up < 0 else "", link.steps


def _styles(layout: Layout) -> Styles:
    """Choose colours and dashes. In every picture the first way up is red, and the first way down is blue."""
    changes = dict.fromkeys(_change(layout, link) for link in layout.graph.links if link.steps)
    directions = ["up: ", "down: ", ""]
    reserved = {"up: ": 0, "down: ": 1}
    others = itertools.cycle(range(2, len(_COLOURS)))
    found = {}
    for change in sorted(changes, key=lambda change: directions.index(change[0])):
        i = reserved.pop(change[0]) if change[0] in reserved else next(others)
        found[change] = (_COLOURS[i], _DASHES[i])
    return found


def _row(level: int, row: Row, width: float, i: int) -> str:
    height = row.bottom - row.top
    shade = f"<rect y='{row.top:.1f}' width='{width:.1f}' height='{height:.1f}' fill='#f4f6f8'/>" if i % 2 else ""
    return f"{shade}<text x='12' y='{row.middle + 4:.1f}' fill='#6b7178'>stride {2**level}</text>"


def _block(block: Block, box: Box) -> str:
    x, y = box.x - box.width / 2, box.y - box.height / 2
    style = f"fill='{_FILLS[block.kind]}' stroke='{_INK}'"
    radius = 12 if is_sign(block) else 9 if block.kind in ("input", "output") else 4
    shape = f"<rect x='{x:.1f}' y='{y:.1f}' width='{box.width:.1f}' height='{box.height:.1f}' rx='{radius}' {style}/>"
    first = box.y + 4 - (len(block.label) - 1) * LINE / 2
    lines = [
        f"<text x='{box.x:.1f}' y='{first + i * LINE:.1f}' text-anchor='middle'>{escape(line)}</text>"
        for i, line in enumerate(block.label)
    ]
    return shape + "".join(lines)


def _links(layout: Layout, styles: Styles) -> list[str]:
    out = []
    for i, link in enumerate(layout.graph.links):
        colour, dash = styles[_change(layout, link)] if link.steps else (_INK, "")
        a, b, up = layout.boxes[link.source], layout.boxes[link.target], layout.levels_up(link)
        if link in layout.arcs:
            path, head = _arc(a, b, layout.arc_top(link)), "down"
        elif up == 0:
            path, head = [f"M{a.x + a.width / 2:.1f} {a.y:.1f}", f"L{b.x - b.width / 2:.1f} {b.y:.1f}"], "right"
        else:
            down = 1 if up > 0 else -1  # a coarse map is above a fine one
            x1, x2 = layout.ports[i, "out"], layout.ports[i, "in"]
            y1, y2 = a.y + down * a.height / 2, b.y - down * b.height / 2
            middle = (y1 + y2) / 2
            path = [f"M{x1:.1f} {y1:.1f}", f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f}", f"{x2:.1f} {y2:.1f}"]
            head = "down" if up > 0 else "up"
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        out.append(f"<path d='{' '.join(path)}' fill='none' stroke='{colour}' stroke-width='1.5'{dashes}/>")
        out.append(_arrow_head(path[-1], head, colour))
    return out


def _arc(a: Box, b: Box, top: float) -> list[str]:
    """Return the path over the blocks between two blocks of a row."""
    x1, x2, y1, y2 = a.x + a.width / 4, b.x - b.width / 4, a.y - a.height / 2, b.y - b.height / 2
    return [
        f"M{x1:.1f} {y1:.1f}",
        f"C{x1 + 12:.1f} {top:.1f} {x1 + 20:.1f} {top:.1f} {x1 + 34:.1f} {top:.1f}",
        f"L{x2 - 34:.1f} {top:.1f} C{x2 - 20:.1f} {top:.1f} {x2 - 12:.1f} {top:.1f}",
        f"{x2:.1f} {y2:.1f}",
    ]


def _arrow_head(end: str, direction: str, colour: str) -> str:
    x, y = map(float, end.removeprefix("L").split(" "))
    if direction == "right":
        points = [(x, y), (x - 7, y - 3.5), (x - 7, y + 3.5)]
    else:
        d = -1 if direction == "down" else 1
        points = [(x, y), (x - 3.5, y + 7 * d), (x + 3.5, y + 7 * d)]
    return f"<polygon points='{' '.join(f'{px:.1f},{py:.1f}' for px, py in points)}' fill='{colour}'/>"


def _legend(styles: Styles, y: float) -> tuple[list[str], float, float]:
    """Draw the legend, and return it with its height and width."""
    out, x, right, height = [], 78.0, 0.0, 0.0
    for (direction, steps), (colour, dash) in styles.items():
        words = direction + ", then ".join(steps)
        needed = 34 + len(words) * LETTER + 24
        if x + needed > 900 and x > 78:
            x, y, height = 78.0, y + 20, height + 20
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        out.append(f"<path d='M{x:.1f} {y - 4:.1f} h26' stroke='{colour}' stroke-width='2'{dashes}/>")
        out.append(f"<text x='{x + 32:.1f}' y='{y:.1f}'>{escape(words)}</text>")
        x += needed
        right = max(right, x)
    return out, height, right
