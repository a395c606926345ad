"""YAML for configs: plain values, and the arithmetic in `!!python/object/apply:eval` of Detectron2's configs.

Detectron2's RetinaNet configs compute their anchor sizes with that tag, which asks the reader to run any
Python. Here the text is parsed, and only lists, numbers, + - * / ** and `[… for x in […]]` are worked out.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

import yaml

__all__ = ["ConfigLoader"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,  # of floats: fails at once where integers would grow without end
}
_LARGEST = 1e9  # of any intermediate number: integers stay cheap
_LONGEST = 200  # characters of an expression: keeps nested lists small


class ConfigLoader(yaml.SafeLoader):
    """yaml's safe loader, plus arithmetic."""


def _construct_eval(loader: ConfigLoader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    try:
        if len(arguments) != 1 or not isinstance(arguments[0], str) or len(arguments[0]) > _LONGEST:
            raise ValueError("expected one short text")
        return _evaluate(ast.parse(arguments[0], mode="eval").body, {})
    except (ValueError, SyntaxError, ArithmeticError, TypeError) as e:
        problem = f"only arithmetic on numbers and lists is worked out, not {arguments}: {e}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return _small(value)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, names) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, names)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _small(_BINARY[type(op)](_number(left, names), _number(right, names)))
        case ast.ListComp(elt=item, generators=[ast.comprehension(target=ast.Name(id=name), iter=items, ifs=[])]):
            values = _evaluate(items, names)
            return [_evaluate(item, names | {name: value}) for value in values]
    raise ValueError(ast.unparse(node))


def _number(node: ast.expr, names: dict[str, Any]) -> int | float:
    value = _evaluate(node, names)
    if not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node)} is no number")
    return value


def _small(value: Any) -> int | float:
    if abs(value) > _LARGEST:
        raise ValueError(f"{value} is out of range")
    return value


ConfigLoader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _construct_eval)
