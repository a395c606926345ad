"""Detectron2's `engine.hooks`: what is done around the steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...engine import Hook
from ...engine.hooks import Evaluation
from ..absent import absent

__all__ = ["CallbackHook", "EvalHook", "HookBase"]

__getattr__ = absent(__name__, __all__)


class HookBase(Hook):
    """A hook with Detectron2's methods: those of `sn2fpn.engine.Hook`, and two inside of a step.

    `self.trainer` is the `DefaultTrainer`, with `iter`, `max_iter`, `model`, `optimizer`, `storage` and `cfg`. In
    `before_train`, `trainer.iter` is the first iteration, and in `after_train` it is one more than the last one, so
    that it equals `trainer.max_iter` unless the training was stopped early.
    """

    def before_step(self) -> None:
        """Called before the step of the iteration `trainer.iter`."""

    def after_backward(self) -> None:
        """Called after the gradients were computed, before they are clipped and the optimizer makes its step."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors that checkpoints hold; nothing by default.

        A checkpoint has them under `checkpoint_key`, or else under the name of the class, for one hook of each class.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` has returned before the run was resumed."""


class HookState:
    """The state of a hook in a checkpoint, which has no place for an empty one."""

    def __init__(self, hook: HookBase) -> None:
        self._hook = hook
        self.load_state_dict = hook.load_state_dict

    def state_dict(self) -> dict[str, Any] | None:
        return self._hook.state_dict() or None


class EvaluationByMethod(Evaluation):
    """The evaluation of a trainer whose class has its own method `test`, which is called also without data sets."""

    def _has_data(self) -> bool:
        return True

    def _evaluate(self) -> dict[str, float]:
        trainer = self.trainer
        results = trainer.test(trainer.cfg, self.model)
        trainer.results = {"": results}
        return _flat(results or {})


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
