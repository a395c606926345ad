"""Pyramids drawn from their code: the module is traced to a graph, the graph is drawn as SVG."""

from .graph import Block, Link, PyramidGraph
from .svg import draw_pyramid, graph_in_drawing
from .trace import trace_pyramid

__all__ = ["Block", "Link", "PyramidGraph", "draw_pyramid", "graph_in_drawing", "trace_pyramid"]
