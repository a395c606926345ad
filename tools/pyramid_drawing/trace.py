"""The tracing of a pyramid's data flow: which map is computed from which maps, and by which operations.

`torch.export` runs the module on maps without values and records every operation with the module that it belongs to.
The size of a map determines its level. A module that reads one map and computes one map is a block, and so is a module
that joins several maps to one in more than one step. The module `steps` simplifies the rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sn2fpn.pyramids import Pyramid

from .graph import PyramidGraph
from .steps import Step, as_graph, simplify
from .words import SAME, SIGNS, arguments, call_stack, describe_module, describe_operation, operation

__all__ = ["trace_pyramid"]

_SIDE = 512  # side of the image in pixels, a power of two, so that each level has its own size


def trace_pyramid(pyramid: Pyramid) -> PyramidGraph:
    """Trace the data flow of a pyramid in evaluation mode, from the maps of the trunk to the outputs.

    Args:
        pyramid: a pyramid without a trunk.

    Raises:
        ValueError: an output does not depend on any map of the trunk.
    """
    maps = {
        name: torch.zeros(1, channels, _SIDE >> level, _SIDE >> level)
        for name, channels, level in zip(pyramid.in_features, pyramid.in_channels, pyramid.levels)
    }
    training = pyramid.training
    exported = torch.export.export(pyramid.eval(), (maps,), strict=False)
    pyramid.train(training)
    first = simplify(_Reader(pyramid, exported).read())
    reader = _Reader(pyramid, exported)
    per_call = Counter(key for step in first for key in reader.around(step.owner))
    reader.closed = {call.type for key, call in reader.calls.items() if per_call[key] > 1 and len(call.outputs) == 1}
    return as_graph(simplify(reader.read()) if reader.closed else first)


@dataclass
class _Call:
    """A call of a submodule, with its operations, the maps that it reads, and the maps that others read from it."""

    key: str
    path: str
    type: str
    parent: str
    members: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


class _Reader:
    """The conversion of recorded operations to steps."""

    def __init__(self, pyramid: Pyramid, exported: torch.export.ExportedProgram) -> None:
        self.pyramid = pyramid
        self.nodes = list(exported.graph.nodes)
        self.inputs = list(exported.graph_signature.user_inputs)
        self.modules = dict(pyramid.named_modules())
        self.levels = {_SIDE >> level: level for level in (*pyramid.levels, *pyramid.out_levels)}
        self.made_of_maps: set[Any] = set()
        self.calls = self._calls()
        self.closed: set[str] = set()  # classes of modules that are blocks although they read several maps
        self.steps: dict[Any, Step] = {}  # recorded operation -> the step that computes its map

    def read(self) -> list[Step]:
        """Return blocks and operations, each with the steps that it reads."""
        steps: list[Step] = []
        for node in self.nodes:
            if node.op == "placeholder" and node.name in self.inputs:
                level = self.pyramid.levels[self.inputs.index(node.name)]
                self.steps[node] = Step(level, "input", [f"C{level}"])
                steps.append(self.steps[node])
            elif node.op == "call_function":
                steps += self._read_call(node)
            elif node.op == "output":
                steps += self._read_outputs(node)
        return steps

    def _read_call(self, node: Any) -> list[Step]:
        sources = self._sources(node)
        if not sources:
            return []  # it only depends on parameters
        call = self._block_of(node)
        if call:
            if call.outputs == [node]:
                kind = "join" if len(call.inputs) > 1 else "block"
                level = self._level(node, sources[0])
                links = [(self.steps[n], self._resizing(n, call, level)) for n in call.inputs]
                alone = call.type in self.closed
                step = Step(level, kind, self._module_label(call), links, call.parent, alone=alone)
                self.steps[node] = step
                return [step]
            self.steps[node] = sources[0]  # it is inside a block and is not read elsewhere
            return []
        op = operation(node)
        if op in SAME and len(sources) == 1:
            self.steps[node] = sources[0]
            return []
        label = describe_operation(node, len(sources))
        if label is None:
            self.steps[node] = sources[0]
            return []
        kind = "join" if len(sources) > 1 else "block"
        level, links = self._level(node, sources[0]), [(s, []) for s in sources]
        step = Step(level, kind, [label], links, call_stack(node)[-1], functional=kind == "block")
        self.steps[node] = step
        return [step]

    def _read_outputs(self, node: Any) -> list[Step]:
        out = []
        for name, level, value in zip(self.pyramid.out_features, self.pyramid.out_levels, node.args[0]):
            if value not in self.steps:
                raise ValueError(f"output {name} does not depend on any map of the trunk")
            out.append(Step(level, "output", [name], [(self.steps[value], [])]))
        return out

    def _sources(self, node: Any) -> list[Step]:
        """Return the steps whose maps an operation reads, in order and as often as they are read."""
        return [self.steps[n] for n in arguments(node) if n in self.steps]

    def _level(self, node: Any, source: Step) -> int:
        """Return the level of a map by its size. A value without a size, e.g. a gate, has the level of its source."""
        value = node.meta.get("val")
        side = value.shape[-1] if isinstance(value, Tensor) and value.ndim >= 4 else 0
        return self.levels.get(int(side), source.level)

    # ------------------------------------------------------------ module calls

    def _calls(self) -> dict[str, _Call]:
        """Collect the calls of submodules with the maps that they read and compute."""
        calls: dict[str, _Call] = {}
        made_of_maps = self.made_of_maps
        for node in self.nodes:
            if node.op == "placeholder" and node.name in self.inputs:
                made_of_maps.add(node)
            if node.op != "call_function":
                continue
            if any(n in made_of_maps for n in arguments(node)):
                made_of_maps.add(node)
            for parent, key in pairwise(call_stack(node)):
                path, kind = node.meta["nn_module_stack"][key]
                calls.setdefault(key, _Call(key, path.partition("@")[0], str(kind), parent)).members.append(node)
        for call in calls.values():
            inside = set(call.members)
            reads = [n for node in call.members for n in arguments(node) if n in made_of_maps and n not in inside]
            call.inputs = list(dict.fromkeys(reads))
            call.outputs = [n for n in call.members if n in made_of_maps and any(u not in inside for u in n.users)]
        return calls

    def around(self, key: str) -> list[str]:
        """Return a call and the calls that contain it, the innermost first."""
        return [key, *self.around(self.calls[key].parent)] if key else []

    def _block_of(self, node: Any) -> _Call | None:
        """Return the outermost call around an operation that is a block."""
        for key in call_stack(node)[1:]:
            call = self.calls[key]
            if next(self.modules[call.path].parameters(), None) is None:
                continue  # its operations, such as resizing, say more than its class
            if len(call.outputs) == 1 and (len(call.inputs) == 1 or call.type in self.closed):
                return call
        return None

    def _resizing(self, value: Any, call: _Call, level: int) -> list[str]:
        """Describe the resizing and the factors that a block applies to an input of another level."""
        source, words, reached = self.steps[value], [], {value}
        if source.level == level or len(call.inputs) == 1:
            return []
        for node in call.members:
            if any(n in reached for n in arguments(node)):
                reached.add(node)
                changes = self._level(node, source) != source.level
                if changes or operation(node) == "mul":
                    word = describe_operation(node)
                    words += [word] if word else []
                if changes:
                    break
        return words

    def _module_label(self, call: _Call) -> list[str]:
        """Describe a module by its class or, if the class is private, by its content without joins and resizing."""
        module = self.modules[call.path]
        if not type(module).__name__.startswith("_"):
            return describe_module(module)
        words: list[str] = []
        for node in call.members:
            stack = call_stack(node)
            inside = stack[stack.index(call.key) + 1 :]
            if inside:
                words += describe_module(self.modules[self.calls[inside[0]].path])
            elif node in self.made_of_maps and (op := operation(node)) not in (*SAME, *SIGNS, "cat"):
                words += [describe_operation(node)] if "upsample" not in op else []
        return list(dict.fromkeys(words))
