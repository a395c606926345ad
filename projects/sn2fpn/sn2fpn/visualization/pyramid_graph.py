"""The data flow of a pyramid, read off the module itself: which map is made of which, and by what operation.

`torch.export` runs the module on maps without values and records every operation with the module it belongs to. A
map's size tells its level. What is left to do here is to tell the same story in fewer words:

- a module with one map in and one map out is a block ("3x3"), whatever is inside, and so is a module that joins
  several maps into one by more than one step;
- a change of level belongs to the link between two blocks, and so does a conv that feeds a join of its own module;
- what only follows on from a block (an activation, a factor; a chain inside one module) becomes part of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..pyramids import Pyramid

__all__ = ["Link", "Block", "PyramidGraph", "trace_pyramid"]

_SIDE = 512  # pixels of the imagined image, a power of two: each level has a size of its own
_SAME = ("alias", "clone", "contiguous", "detach", "dropout", "expand", "flatten", "getitem", "reshape", "select",
         "slice", "split", "squeeze", "to", "unflatten", "unsqueeze", "view", "_assert_tensor_metadata",
         "_to_copy", "constant_pad_nd", "pad", "lift_fresh_copy")  # fmt: skip
_SIGNS = {"add": "+", "sum": "+", "mul": "×", "maximum": "max", "div": "÷", "sub": "−"}


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
        return {"blocks": [asdict(b) | {"label": list(b.label)} for b in self.blocks],
                "links": [asdict(k) | {"steps": list(k.steps)} for k in self.links]}  # fmt: skip


def trace_pyramid(pyramid: Pyramid) -> PyramidGraph:
    """The data flow of a pyramid in evaluation, from trunk maps to outputs.

    Args:
        pyramid: without a trunk attached.

    Raises:
        ValueError: an output that no trunk map reaches, or a size that belongs to no level.
    """
    maps = {
        name: torch.zeros(1, channels, _SIDE >> level, _SIDE >> level)
        for name, channels, level in zip(pyramid.in_features, pyramid.in_channels, pyramid.levels)
    }
    training = pyramid.training
    exported = torch.export.export(pyramid.eval(), (maps,), strict=False)
    pyramid.train(training)
    first = _simplify(_Reader(pyramid, exported).read())
    reader = _Reader(pyramid, exported)
    per_call = Counter(key for step in first for key in reader.around(step.owner))
    reader.closed = {call.type for key, call in reader.calls.items() if per_call[key] > 1 and len(call.outputs) == 1}
    return _graph(_simplify(reader.read()) if reader.closed else first)


@dataclass
class _Step:
    """A block in the making: `owner` is the module call around it, `is_chain` whether that makes one map."""

    level: int
    kind: str
    label: list[str]
    sources: list[tuple[_Step, list[str]]] = field(default_factory=list)
    owner: str = ""
    is_chain: bool = False
    functional: bool = False
    readers: int = 0
    name: str = ""


class _Reader:
    """From the recorded operations to steps, then to fewer steps."""

    def __init__(self, pyramid: Pyramid, exported: torch.export.ExportedProgram) -> None:
        self.pyramid = pyramid
        self.nodes = list(exported.graph.nodes)
        self.inputs = list(exported.graph_signature.user_inputs)
        self.modules = dict(pyramid.named_modules())
        self.levels = {_SIDE >> level: level for level in (*pyramid.levels, *pyramid.out_levels)}
        self.made_of_maps: set[Any] = set()
        self.calls = self._calls()
        self.closed: set[str] = set()  # classes of modules that are blocks though they read several maps
        self.steps: dict[Any, _Step] = {}  # recorded operation -> the step whose map it makes

    def read(self) -> list[_Step]:
        """Blocks and operations, each with the steps that it reads."""
        steps: list[_Step] = []
        for node in self.nodes:
            if node.op == "placeholder" and node.name in self.inputs:
                level = self.pyramid.levels[self.inputs.index(node.name)]
                self.steps[node] = _Step(level, "input", [f"C{level}"])
                steps.append(self.steps[node])
            elif node.op == "call_function":
                steps += self._read_call(node)
            elif node.op == "output":
                steps += self._read_outputs(node)
        return steps

    def _read_call(self, node: Any) -> list[_Step]:
        sources = self._sources(node)
        if not sources:
            return []  # made of parameters alone
        call = self._block_of(node)
        if call:
            if call.outputs == [node]:
                kind = "join" if len(call.inputs) > 1 else "block"
                step = self._step(self._level(node, sources[0]), kind, self._module_label(call), call.parent)
                step.sources = [(self.steps[n], self._resizing(n, call, step.level)) for n in call.inputs]
                self.steps[node] = step
                return [step]
            self.steps[node] = sources[0]  # inside the block: nobody else reads it
            return []
        op = _operation(node)
        if op in _SAME and len(sources) == 1:
            self.steps[node] = sources[0]
            return []
        label = self._function_label(node, op, sources)
        if label is None:
            self.steps[node] = sources[0]
            return []
        kind = "join" if len(sources) > 1 else "block"
        step = self._step(self._level(node, sources[0]), kind, [label], _stack(node)[-1])
        step.sources, step.functional = [(s, []) for s in sources], kind == "block"
        self.steps[node] = step
        return [step]

    def _step(self, level: int, kind: str, label: list[str], owner: str) -> _Step:
        return _Step(level, kind, label, owner=owner, is_chain=bool(owner) and len(self.calls[owner].outputs) == 1)

    def _read_outputs(self, node: Any) -> list[_Step]:
        out = []
        for name, level, value in zip(self.pyramid.out_features, self.pyramid.out_levels, node.args[0]):
            if value not in self.steps:
                raise ValueError(f"output {name} is made of no trunk map")
            out.append(_Step(level, "output", [name], [(self.steps[value], [])]))
        return out

    def _sources(self, node: Any) -> list[_Step]:
        """The distinct maps that an operation reads, in order (a map may be read twice: it then counts twice)."""
        return [self.steps[n] for n in _arguments(node) if n in self.steps]

    def _level(self, node: Any, source: _Step) -> int:
        """By size; a value without one (a global mean, a gate) belongs to the level that it was made of."""
        value = node.meta.get("val")
        side = value.shape[-1] if isinstance(value, Tensor) and value.ndim >= 4 else 0
        return self.levels.get(int(side), source.level)

    # ------------------------------------------------------------ module calls

    def _calls(self) -> dict[str, _Call]:
        """Each call of a submodule with the maps that go in and come out."""
        calls: dict[str, _Call] = {}
        made_of_maps = self.made_of_maps
        for node in self.nodes:
            if node.op == "placeholder" and node.name in self.inputs:
                made_of_maps.add(node)
            if node.op != "call_function":
                continue
            if any(n in made_of_maps for n in _arguments(node)):
                made_of_maps.add(node)
            for parent, key in pairwise(_stack(node)):
                path, kind = node.meta["nn_module_stack"][key]
                calls.setdefault(key, _Call(path.partition("@")[0], str(kind), parent)).members.append(node)
        for call in calls.values():
            inside = set(call.members)
            reads = [n for node in call.members for n in _arguments(node) if n in made_of_maps and n not in inside]
            call.inputs = list(dict.fromkeys(reads))
            call.outputs = [n for n in call.members if n in made_of_maps and any(u not in inside for u in n.users)]
        return calls

    def around(self, key: str) -> list[str]:
        """A call and the calls around it, innermost first."""
        return [key, *self.around(self.calls[key].parent)] if key else []

    def _block_of(self, node: Any) -> _Call | None:
        """The outermost call around an operation that is a block."""
        for key in _stack(node)[1:]:
            call = self.calls[key]
            if len(call.outputs) == 1 and (len(call.inputs) == 1 or call.type in self.closed):
                return call
        return None

    def _resizing(self, value: Any, call: _Call, level: int) -> list[str]:
        """What a block does to an input of another level before that has the block's: resizing and factors."""
        source, words, reached = self.steps[value], [], {value}
        if source.level == level or len(call.inputs) == 1:
            return []
        for node in call.members:
            if any(n in reached for n in _arguments(node)):
                reached.add(node)
                changes = self._level(node, source) != source.level
                if changes or _operation(node) == "mul":
                    word = self._function_label(node, _operation(node), [source])
                    words += [word] if word else []
                if changes:
                    break
        return words

    # ------------------------------------------------------------ words

    def _module_label(self, call: _Call) -> list[str]:
        """A module's own words; for a private class, which has none, those of what is inside but joins and resizing."""
        module = self.modules[call.path]
        if not type(module).__name__.startswith("_"):
            return _describe(module)
        words: list[str] = []
        for node in call.members:
            parts = [self.calls[key] for key in _stack(node)[1:] if call in map(self.calls.get, self.around(key)[1:])]
            if parts:
                words += _describe(self.modules[parts[0].path])
            elif node in self.made_of_maps and (op := _operation(node)) not in (*_SAME, *_SIGNS, "cat"):
                words += [self._function_label(node, op, [])] if "upsample" not in op else []
        return list(dict.fromkeys(words))

    def _function_label(self, node: Any, op: str, sources: list[_Step]) -> str | None:
        """An operation in words; None when it changes nothing."""
        if "deform_conv2d" in op:
            return f"deform {_kernel(node.args[1])}"
        if op in ("conv2d", "convolution"):
            stride = node.args[3][0] if len(node.args) > 3 else 1
            return _kernel(node.args[1]) + (f"/{stride}" if stride > 1 else "")
        if "pool2d" in op:
            if "adaptive" in op:
                return "global " + ("mean" if "avg" in op else "max")
            k = node.args[1][0]
            stride = node.args[2][0] if len(node.args) > 2 and node.args[2] else k
            return "subsample" if k == 1 else f"{op[:3]}-pool {k}x{k}/{stride}"
        if op.startswith("upsample"):
            corners = op.startswith("upsample_bilinear") and node.args[2]
            return ("nearest" if "nearest" in op else "bilinear") + (", corners aligned" if corners else "")
        if len(sources) == 1 and op in ("mul", "div"):
            factor = next((a for a in node.args if isinstance(a, (int, float))), None)
            if factor is None:
                return "× w"
            factor = 1 / factor if op == "div" else factor
            return None if factor == 1 else f"× {_fraction(factor)}"
        if len(sources) == 1 and op in ("add", "sub"):
            return "+ b"
        if len(sources) == 1 and op == "mean":
            return "global mean"
        return _SIGNS.get(op, op) if len(sources) > 1 else op


@dataclass
class _Call:
    """One call of a submodule: the operations inside, the maps that go in and those that others read."""

    path: str
    type: str
    parent: str
    members: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


def _describe(module: nn.Module) -> list[str]:
    """A module in a few words: "3x3/2", "BN", "relu"; a sequence by its parts; else by its class."""
    if isinstance(module, nn.Sequential):
        return [word for part in module for word in _describe(part)]
    if isinstance(module, nn.Conv2d):
        which = "dw " if 1 < module.groups == module.in_channels else ""
        which = "deform " if "Deform" in type(module).__name__ else which
        kernel, stride = module.kernel_size[0], module.stride[0]
        words = [f"{which}{kernel}x{kernel}" + (f"/{stride}" if stride > 1 else "")]
        parts = [getattr(module, "norm", None), getattr(module, "activation", None)]
        return words + [_class_words(part) for part in parts if part is not None]
    chains = [child for child in module.children() if isinstance(child, nn.Sequential)]
    return [_class_words(module) + (f" n={len(chains[0])}" if len(chains) == 1 else "")]


def _class_words(thing: Any) -> str:
    name = getattr(thing, "__name__", None) or type(thing).__name__
    if "BatchNorm" in name:
        return "frozen BN" if "Frozen" in name else "BN"
    name = {"GroupNorm": "GN", "C3": "C3 block"}.get(name, name).strip("_")  # C3 is a trunk map, too
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)  # FeatureSelection -> Feature Selection
    name = re.sub(r"^(ESD|GSConvE)(\d)$", r"\1-\2", name)
    return name if name[:2].isupper() or "-" in name else name.lower()


def _kernel(weight: Any) -> str:
    return "x".join(str(int(side)) for side in weight.meta["val"].shape[-2:])


def _fraction(value: float) -> str:
    near = Fraction(value).limit_denominator(1024)
    return str(near) if abs(near - value) < 1e-6 else f"{value:.3g}"


def _operation(node: Any) -> str:
    """"aten.upsample_nearest2d.vec" -> "upsample_nearest2d"."""
    target = node.target
    name = getattr(target, "_opname", None) or str(getattr(target, "__name__", target))
    return name.partition(".")[0].rstrip("_")


def _stack(node: Any) -> list[str]:
    """The module calls around an operation, outermost first; the pyramid's own is ""."""
    return ["", *list(node.meta.get("nn_module_stack", {}))[1:]]


def _arguments(node: Any) -> Sequence[Any]:
    """The values that an operation reads, in the order of its arguments, a value as often as it is read."""
    found: list[Any] = []
    torch.fx.map_arg((node.args, node.kwargs), lambda n: found.append(n))
    return found


# ---------------------------------------------------------------- fewer steps


def _simplify(steps: list[_Step]) -> list[_Step]:
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


def _graph(steps: list[_Step]) -> PyramidGraph:
    counts = 0
    for step in steps:
        counts += step.kind not in ("input", "output")
        step.name = step.label[0] if step.kind in ("input", "output") else f"{counts}"
    blocks = tuple(Block(s.name, s.level, s.kind, tuple(s.label)) for s in steps)
    links = tuple(Link(source.name, s.name, _on_the_way(source, s, words)) for s in steps for source, words in s.sources)
    return PyramidGraph(blocks, links)


def _reached(steps: list[_Step]) -> list[_Step]:
    """The steps that an output depends on, with the number of their readers."""
    needed = {id(s) for s in steps if s.kind == "output"}
    for step in steps:
        step.readers = 0
    for step in reversed(steps):
        if id(step) in needed:
            for source, _ in step.sources:
                needed.add(id(source))
                source.readers += 1
    return [s for s in steps if id(s) in needed or s.kind == "input"]


def _absorb(step: _Step, steps: list[_Step]) -> bool:
    """Make `step` part of a neighbour, or of a link, where one of the module's rules says so."""
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
        # Two blocks in a row stay two; a factor before a resizing goes with it.
        if on_a_link and (reader.kind == "join" or changes_level and reader.kind == "output"
                          or factor and reader.kind == "block" and reader.level != step.level):
            _replace(reader, step, source, words + step.label)
            return True
    elif changes_level and step.functional and all(r.kind == "join" and r.level == step.level for r in readers):
        for reader in readers:
            _replace(reader, step, source, words + step.label)
        return True
    follows = source.readers == 1 and not changes_level and not words and source.kind not in ("input", "output")
    if follows and (step.functional or step.is_chain and step.owner == source.owner):
        source.label = source.label + step.label
        for reader in readers:
            _replace(reader, step, source, [])
        return True
    return False


def _replace(reader: _Step, old: _Step, new: _Step, words: list[str]) -> None:
    reader.sources = [(new, words + w) if s is old else (s, w) for s, w in reader.sources]


def _on_the_way(source: _Step, target: _Step, words: list[str]) -> tuple[str, ...]:
    """The words of a link; nearest upsampling with the area ratio as its factor has a name."""
    ratio = f"× {Fraction(1, 4 ** max(source.level - target.level, 0))}"
    if sorted(words) == sorted(["nearest", ratio]):
        words = [f"SNI, α = {ratio[2:]}"]
    return tuple(words)
