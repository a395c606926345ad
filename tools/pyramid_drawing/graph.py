"""The data flow of a pyramid as a graph: blocks that compute feature maps, and links between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Block", "Link", "PyramidGraph"]


@dataclass(frozen=True)
class Block:
    """A step that computes a feature map.

    Attributes:
        name: a unique name.
        level: the level of the map, whose stride is 2**level.
        kind: "input" (a trunk map), "output", "join" (of several maps) or "block".
        label: the lines of text in the drawing.
    """

    name: str
    level: int
    kind: str
    label: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A feature map on its way from a block to a reader, and the steps that change it on the way."""

    source: str
    target: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class PyramidGraph:
    """The blocks of a pyramid in the order of computation, and their links."""

    blocks: tuple[Block, ...]
    links: tuple[Link, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as plain lists and dicts, for JSON."""
        return {
            "blocks": [asdict(b) | {"label": list(b.label)} for b in self.blocks],
            "links": [asdict(k) | {"steps": list(k.steps)} for k in self.links],
        }
