"""Drawings of pyramids from their code: the module is traced to a graph, and the graph is drawn as an SVG picture."""

from .graph import Block, Link, PyramidGraph
from .svg import draw_pyramid, graph_in_drawing
from .trace import trace_pyramid

__all__ = ["Block", "Link", "PyramidGraph", "draw_pyramid", "graph_in_drawing", "trace_pyramid"]
