"""Detectron2's `engine.hooks`: what is done around the steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...engine import Hook
from ..absent import absent

__all__ = ["CallbackHook", "EvalHook", "HookBase"]

__getattr__ = absent(__name__, __all__)


class HookBase(Hook):
    """A hook with Detectron2's methods: those of `sn2fpn.engine.Hook`, and two inside of a step.

    `self.trainer` is the `DefaultTrainer`, with `iter`, `max_iter`, `model`, `optimizer`, `storage` and `cfg`.
    """

    def before_step(self) -> None:
        """Called before the step of the iteration `trainer.iter`."""

    def after_backward(self) -> None:
        """Called after the gradients were computed, before they are clipped and the optimizer makes its step."""


class CallbackHook(HookBase):
    """A hook that calls functions, each of which receives the trainer."""

    def __init__(
        self,
        *,
        before_train: Callable[[Any], None] | None = None,
        after_train: Callable[[Any], None] | None = None,
        before_step: Callable[[Any], None] | None = None,
        after_step: Callable[[Any], None] | None = None,
    ) -> None:
        self._functions = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def before_train(self) -> None:
        self._call("before_train")

    def after_train(self) -> None:
        self._call("after_train")

    def before_step(self) -> None:
        self._call("before_step")

    def after_step(self) -> None:
        self._call("after_step")

    def _call(self, name: str) -> None:
        if (function := self._functions[name]) is not None:
            function(self.trainer)


class EvalHook(HookBase):
    """A hook that calls a function every `eval_period` iterations and at the end, and stores the numbers it returns.

    Args:
        eval_period: iterations between two calls; 0 means at the end only.
        eval_function: returns numbers by name, also in dicts inside of dicts, or None.
        eval_after_train: whether the function is called at the end.
    """

    def __init__(self, eval_period: int, eval_function: Callable[[], Any], eval_after_train: bool = True) -> None:
        self._period = eval_period
        self._function = eval_function
        self._at_end = eval_after_train

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            self._evaluate()

    def after_train(self) -> None:
        if self._at_end:
            self._evaluate()

    def _evaluate(self) -> None:
        results = self._function()
        if results:
            self.trainer.storage.put_rare(_flat(results))


def _flat(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of nested dicts, by names such as "bbox/AP"."""
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = float(value)
    return flat
