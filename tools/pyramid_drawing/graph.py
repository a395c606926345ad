"""A pyramid's data flow as plain data: blocks that make maps, and links along which maps go."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Block", "Link", "PyramidGraph"]


@dataclass(frozen=True)
class Block:
    """A step that makes a map. `kind`: "input" (trunk map), "output", "join" (of several maps) or "block"."""

    name: str
    level: int
    kind: str
    label: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A map on its way from a block to a reader; `steps`: what happens to it on the way."""

    source: str
    target: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class PyramidGraph:
    """A pyramid's blocks, in the order of computation, and their links."""

    blocks: tuple[Block, ...]
    links: tuple[Link, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, for JSON."""
        return {
            "blocks": [asdict(b) | {"label": list(b.label)} for b in self.blocks],
            "links": [asdict(k) | {"steps": list(k.steps)} for k in self.links],
        }
