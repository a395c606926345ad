"""Detectron2's `config`: configurations, and classes and functions that can be called with one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig

from ..config import CfgNode, LazyCall, LazyConfig, instantiate
from ..config import get_cfg as _get_cfg
from .absent import absent

__all__ = ["CfgNode", "LazyCall", "LazyConfig", "configurable", "get_cfg", "instantiate"]

__getattr__ = absent(__name__, __all__)


def get_cfg() -> CfgNode:
    """Return a new configuration with the defaults, in which assignments also make keys of your own, as in Detectron2.

    Files and command lines still cannot: their unknown keys are refused.

    Example:
        >>> from sn2fpn.compat.config import get_cfg
        >>> cfg = get_cfg()
        >>> cfg.SOLVER.MY_FACTOR = 0.5
        >>> cfg.merge_from_list(["SOLVER.BASE_LRR", 0.1])
        Traceback (most recent call last):
            ...
        sn2fpn.errors.UserError: command line: unknown config key 'SOLVER.BASE_LRR'; did you mean 'SOLVER.BASE_LR'?
    """
    return _get_cfg().close(new_keys=True)


def configurable(
    init_func: Callable[..., None] | None = None, *, from_config: Callable[..., Mapping[str, Any]] | None = None
) -> Any:
    """Let a class or a function be called with a configuration in place of its arguments.

    The decorator of `__init__` takes the arguments from the classmethod `from_config(cfg, …)` of the class, and that of
    a function from `from_config`. Keyword arguments that are given besides the configuration go to `from_config` if it
    has arguments of these names, and otherwise replace what it returns.

    Args:
        init_func: the method `__init__` of a class, in the form `@configurable`.
        from_config: turns a configuration into arguments, in the form `@configurable(from_config=…)`.

    Raises:
        AttributeError: on a call, the class has no `from_config`.
        TypeError: on a call, `from_config` is no classmethod, or its first argument is not called `cfg`.

    Example:
        >>> from sn2fpn.compat.config import configurable, get_cfg
        >>> class Head:
        ...     @configurable
        ...     def __init__(self, num_classes, width=64):
        ...         self.num_classes, self.width = num_classes, width
        ...     @classmethod
        ...     def from_config(cls, cfg):
        ...         return {"num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES}
        >>> head = Head(get_cfg(), width=32)
        >>> head.num_classes, head.width
        (80, 32)
    """
    if from_config is not None:
        return lambda function: _configurable_function(function, from_config)
    if init_func is None:
        return configurable
    if getattr(init_func, "__name__", "") != "__init__":
        raise TypeError("@configurable without arguments stands before a class's __init__; expected from_config=…")

    @functools.wraps(init_func)
    def with_config(self: Any, *args: Any, **kwargs: Any) -> None:
        make = getattr(type(self), "from_config", None)
        if make is None:
            raise AttributeError(f"{type(self).__name__}: @configurable needs the classmethod from_config")
        if not inspect.ismethod(make):
            raise TypeError(f"{type(self).__name__}.from_config: expected a classmethod")
        if _is_config(args, kwargs):
            init_func(self, **_arguments(make, args, kwargs))
        else:
            init_func(self, *args, **kwargs)

    return with_config


def _configurable_function(function: Callable[..., Any], make: Callable[..., Mapping[str, Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def with_config(*args: Any, **kwargs: Any) -> Any:
        return function(**_arguments(make, args, kwargs)) if _is_config(args, kwargs) else function(*args, **kwargs)

    with_config.from_config = make  # type: ignore[attr-defined]
    return with_config


def _is_config(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call gives a configuration, first or as `cfg`."""
    return isinstance(args[0] if args else kwargs.get("cfg"), CfgNode | DictConfig)


def _arguments(
    make: Callable[..., Mapping[str, Any]], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = inspect.signature(make).parameters
    if next(iter(parameters), "") != "cfg":
        raise TypeError(f"{make.__qualname__}: expected the first argument to be called cfg, found {list(parameters)}")
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(make(*args, **kwargs))
    taken = {name: value for name, value in kwargs.items() if name in parameters}
    return {**make(*args, **taken), **{name: value for name, value in kwargs.items() if name not in taken}}
