"""The simplification of a traced data flow to the steps that a reader wants to see.

- A change of level is drawn on the link between two blocks, and so is a conv whose map enters a join of its own module.
- An activation or a factor that follows a block becomes part of the block, and so does a chain inside one module.
- A sum of sums is one sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from .graph import Block, Link, PyramidGraph

__all__ = ["Step", "as_graph", "simplify"]


@dataclass
class Step:
    """A step of the data flow, which becomes a block of the graph or a part of a neighbour.

    Attributes:
        level: the level of its map.
        kind: see `Block`.
        label: the words that describe it.
        sources: the steps whose maps it reads, with the words that describe the changes on the way.
        owner: the module call that contains it; "" is the pyramid itself.
        alone: whether it remains a block of its own, because other modules of its class join maps.
        functional: whether it is a single operation on one map, without a module.
        readers: how often its map is read.
        name: the name of its block.
    """

    level: int
    kind: str
    label: list[str]
    sources: list[tuple[Step, list[str]]] = field(default_factory=list)
    owner: str = ""
    alone: bool = False
    functional: bool = False
    readers: int = 0
    name: str = ""


def simplify(steps: list[Step]) -> list[Step]:
    """Merge steps with their neighbours until no rule of this module applies."""
    steps = _reached(steps)
    changed = True
    while changed:
        changed = False
        for step in steps:
            if _absorb(step, steps):
                changed = True
                steps = _reached(steps)
                break
    return steps


def as_graph(steps: list[Step]) -> PyramidGraph:
    """Convert steps to a graph, in which inputs and outputs keep their names and the other blocks are numbered."""
    counts = 0
    for step in steps:
        counts += step.kind not in ("input", "output")
        step.name = step.label[0] if step.kind in ("input", "output") else f"{counts}"
    blocks = tuple(Block(s.name, s.level, s.kind, tuple(s.label)) for s in steps)
    place = {step.name: i for i, step in enumerate(steps)}
    links = [Link(source.name, s.name, _on_the_way(source, s, words)) for s in steps for source, words in s.sources]
    return PyramidGraph(blocks, tuple(sorted(links, key=lambda k: (place[k.target], place[k.source], k.steps))))


def _reached(steps: list[Step]) -> list[Step]:
    """Return the inputs and the steps that an output depends on, and count their readers."""
    needed = {id(s) for s in steps if s.kind == "output"}
    for step in steps:
        step.readers = 0
    for step in reversed(steps):
        if id(step) in needed:
            for source, _ in step.sources:
                needed.add(id(source))
                source.readers += 1
    return [s for s in steps if id(s) in needed or s.kind == "input"]


def _absorb(step: Step, steps: list[Step]) -> bool:
    """Merge a step with a neighbour or a link if a rule of this module applies, and return whether one does."""
    if step.kind in ("input", "output"):
        return False
    if step.kind == "join":
        for i, (source, words) in enumerate(step.sources):  # (a + b) + c is a + b + c
            sums = source.kind == "join" and source.label == step.label == ["+"] and not words
            if sums and source.readers == 1 and source.level == step.level and source.owner == step.owner:
                step.sources[i : i + 1] = source.sources
                return True
        return False
    source, words = step.sources[0]
    changes_level = source.level != step.level
    factor = step.functional and step.label[0].startswith("× ")
    readers = [s for s in steps if any(x is step for x, _ in s.sources)]
    if step.readers == 1:
        reader = readers[0]
        on_a_link = changes_level or words or factor or step.owner == reader.owner != ""
        # Two blocks in sequence remain two blocks. A factor before a resizing is drawn with the resizing.
        if on_a_link and (
            reader.kind == "join"
            or (changes_level and reader.kind == "output")
            or (factor and reader.kind == "block" and reader.level != step.level)
        ):
            _replace(reader, step, source, words + step.label)
            return True
    elif changes_level and step.functional and all(r.kind == "join" and r.level == step.level for r in readers):
        for reader in readers:
            _replace(reader, step, source, words + step.label)
        return True
    follows = source.readers == 1 and not changes_level and not words and source.kind not in ("input", "output")
    if follows and (step.functional or (step.owner == source.owner != "" and not step.alone)):
        source.label = source.label + step.label
        for reader in readers:
            _replace(reader, step, source, [])
        return True
    return False


def _replace(reader: Step, old: Step, new: Step, words: list[str]) -> None:
    reader.sources = [(new, words + w) if s is old else (s, w) for s, w in reader.sources]


def _on_the_way(source: Step, target: Step, words: list[str]) -> tuple[str, ...]:
    """Return the words of a link. Nearest upsampling with the area ratio as its factor is called SNI."""
    ratio = f"× {Fraction(1, 4 ** max(source.level - target.level, 0))}"
    if sorted(words) == sorted(["nearest", ratio]):
        words = [f"SNI, α = {ratio[2:]}"]
    return tuple(words)
