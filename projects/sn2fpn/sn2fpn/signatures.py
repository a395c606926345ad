"""The keyword arguments that a callable takes, including those that it passes on to its base class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["keyword_parameters"]


def keyword_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of `target` that can be given by name, in the order of its signature.

    A class whose constructor ends with `**kwargs` passes these on to its base class, so the parameters of the base
    class's constructor follow its own.

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
            parameters = list(inspect.signature(owner).parameters.values())
        except (TypeError, ValueError):
            break
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, p)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found
