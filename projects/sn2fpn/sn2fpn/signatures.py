"""The keyword arguments that a callable takes, and whether a value suits an argument's annotation."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["fits", "keyword_parameters", "type_words"]

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    None: "null",
    type(None): "null",
}
_SCALARS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}


def keyword_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of `target` that can be given by name, in the order of its signature.

    A class whose constructor ends with `**kwargs` passes these on to its base class, so the parameters of the base
    class's constructor follow its own. Annotations are types, or strings where they name what cannot be imported.

    Args:
        target: a class or a function.

    Returns:
        Parameters by name; empty for a callable that has no signature, such as some that are written in C.

    Example:
        >>> class Base:
        ...     def __init__(self, width=1): ...
        >>> class Wide(Base):
        ...     def __init__(self, depth=2, **base): ...
        >>> list(keyword_parameters(Wide))
        ['depth', 'width']
    """
    found: dict[str, inspect.Parameter] = {}
    constructors = [c for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    for owner in constructors:
        try:
            parameters = _signature(owner)
        except (TypeError, ValueError):
            break
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, p)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _signature(target: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(target, eval_str=True)
    except Exception:  # an annotation may name what only a type checker imports, or fail in other ways
        signature = inspect.signature(target)
    return list(signature.parameters.values())


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value as YAML knows it suits an annotation.

    An integer suits `float`. A type that YAML does not have also accepts mappings, since these may describe an object
    of that type. Without an annotation, or with one that is not a type, every value is accepted.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in arguments)
    if origin is typing.Literal:
        return value in arguments
    kind = origin or annotation
    if kind in (None, type(None)):
        return value is None
    if kind in (Any, object, inspect.Parameter.empty) or not isinstance(kind, type):
        return True
    if kind in _SCALARS:
        return type(value) in _SCALARS[kind]
    if issubclass(kind, Sequence) or kind is Iterable:
        return isinstance(value, Sequence) and not isinstance(value, str) and _items_fit(value, kind, arguments)
    return isinstance(value, (Mapping, kind))


def _items_fit(items: Sequence[Any], kind: type, annotations: tuple[Any, ...]) -> bool:
    if kind is tuple and annotations and annotations[-1] is not ...:
        return len(items) == len(annotations) and all(map(fits, items, annotations))
    return not annotations or all(fits(item, annotations[0]) for item in items)


def type_words(annotation: Any) -> str:
    """Return what `fits` expects of a value, in words that need no knowledge of Python's types.

    Example:
        >>> from collections.abc import Sequence
        >>> type_words(float | str), type_words(Sequence[int]), type_words(tuple[int, str])
        ('a number or text', 'a list of whole numbers', 'a list of 2 items: a whole number, text')
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(type_words, arguments))
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    kind = origin or annotation
    if kind in _WORDS:
        return _WORDS[kind]
    if not isinstance(kind, type) or kind is object:
        return "any value"
    if issubclass(kind, Mapping):
        return "a group of keys"
    if not (issubclass(kind, Sequence) or kind is Iterable):
        return kind.__name__
    if kind is tuple and arguments and arguments[-1] is not ...:
        return f"a list of {len(arguments)} items: {', '.join(map(type_words, arguments))}"
    plural = re.sub(r"^a ((?:whole )?number)\b", r"\1s", type_words(arguments[0])) if arguments else ""
    return f"a list of {plural}" if plural else "a list"
