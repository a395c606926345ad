"""A reader of YAML with plain values that also computes the arithmetic in Detectron2's configuration files.

Detectron2's RetinaNet configurations compute their anchor sizes with the tag `!!python/object/apply:eval`, which asks
the reader to run any Python code. This reader parses the text and computes lists, numbers, + - * / ** and
`[… for x in […]]` only, so no code is run.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from .yaml_limits import LimitedLoader

__all__ = ["ConfigLoader"]

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,  # in floating point, where 9**9**9 fails at once; integers would grow without end
}
_LONGEST = 200  # characters of an expression, which keeps integers and nested lists small
_MOST_STEPS = 10_000  # of one expression; Detectron2's have 20


class ConfigLoader(LimitedLoader):
    """The limited safe loader, with arithmetic."""


def _construct_eval(loader: ConfigLoader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    try:
        if len(arguments) != 1 or not isinstance(arguments[0], str) or len(arguments[0]) > _LONGEST:
            raise ValueError(f"expected one text of at most {_LONGEST} characters")
        return _evaluate(ast.parse(arguments[0], mode="eval").body, {}, itertools.count())
    except (ValueError, SyntaxError, ArithmeticError, TypeError, RecursionError, MemoryError) as e:
        problem = f"only arithmetic on numbers and lists is supported, found {arguments}: {e}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _evaluate(node: ast.expr, names: dict[str, Any], steps: Iterator[int]) -> Any:
    if next(steps) > _MOST_STEPS:
        raise ValueError(f"it takes more than {_MOST_STEPS} steps")
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, names, steps) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, names, steps)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
            numbers = _evaluate(left, names, steps), _evaluate(right, names, steps)
            if not all(isinstance(number, int | float) for number in numbers):
                raise ValueError(f"{ast.unparse(node)} is not a computation with numbers")
            return _OPERATORS[type(op)](*numbers)
        case ast.ListComp(elt=item, generators=[ast.comprehension(target=ast.Name(id=name), iter=items, ifs=[])]):
            return [_evaluate(item, names | {name: value}, steps) for value in _evaluate(items, names, steps)]
    raise ValueError(f"{ast.unparse(node)} is not supported")


ConfigLoader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _construct_eval)
