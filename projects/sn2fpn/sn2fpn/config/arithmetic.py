"""A reader of YAML with plain values that also computes the arithmetic in Detectron2's configuration files.

Detectron2's RetinaNet configurations compute their anchor sizes with the tag `!!python/object/apply:eval`, which asks
the reader to run any Python code. This reader parses the text and computes lists, numbers, + - * / ** and
`[… for x in […]]` only, so no code is run.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

import yaml

__all__ = ["ConfigLoader"]

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,  # in floating point, where 9**9**9 fails at once; integers would grow without end
}
_LONGEST = 200  # characters of an expression, which keeps integers and nested lists small


class ConfigLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with arithmetic."""


def _construct_eval(loader: ConfigLoader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    try:
        if len(arguments) != 1 or not isinstance(arguments[0], str) or len(arguments[0]) > _LONGEST:
            raise ValueError(f"expected one text of at most {_LONGEST} characters")
        return _evaluate(ast.parse(arguments[0], mode="eval").body, {})
    except (ValueError, SyntaxError, ArithmeticError, TypeError) as e:
        problem = f"only arithmetic on numbers and lists is supported, found {arguments}: {e}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, names) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, names)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
            numbers = _evaluate(left, names), _evaluate(right, names)
            if not all(isinstance(number, int | float) for number in numbers):
                raise ValueError(f"{ast.unparse(node)} is not a computation with numbers")
            return _OPERATORS[type(op)](*numbers)
        case ast.ListComp(elt=item, generators=[ast.comprehension(target=ast.Name(id=name), iter=items, ifs=[])]):
            return [_evaluate(item, names | {name: value}) for value in _evaluate(items, names)]
    raise ValueError(f"{ast.unparse(node)} is not supported")


ConfigLoader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _construct_eval)
