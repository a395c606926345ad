"""The learning-rate schedule, with Detectron2's rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ...errors import ArgumentError, UserError, argument_names, check_choice, counted
from ...ranges import check_count, check_number
from .functions import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)

__all__ = ["LRMultiplier", "build_lr_scheduler", "build_multiplier", "check_steps", "multi_step", "with_warmup"]

logger = logging.getLogger(__name__)


class LRMultiplier(LRScheduler):
    """A scheduler that multiplies each group's initial learning rate by a function of the progress.

    Its state consists of `base_lrs` and `last_epoch`, which is the iteration, so that a run can be resumed with
    another schedule.

    Args:
        optimizer: the optimizer whose learning rates are set.
        multiplier: function of the progress, which is the iteration divided by `max_iter`.
        max_iter: the number of iterations of the run.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, multiplier: ParamScheduler, max_iter: int) -> None:
        self._multiplier = _WithEnd(multiplier)
        self._max_iter = max_iter
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": list(self.base_lrs), "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]
        for group, lr in zip(self.optimizer.param_groups, self.get_lr()):
            group["lr"] = lr

    def get_lr(self) -> list[float]:
        multiplier = self._multiplier(min(self.last_epoch / self._max_iter, 1.0))
        return [base * multiplier for base in self.base_lrs]


class _WithEnd(ParamScheduler):
    """A function of the progress that has a value at the end of the run, too, where some of fvcore's functions fail.

    At the end it takes the value before the end.
    """

    def __init__(self, function: ParamScheduler) -> None:
        self._function = function

    def __call__(self, where: float) -> float:
        try:
            return self._function(where)
        except (IndexError, RuntimeError):  # fvcore's equal steps and its constant
            return self._function(where - 2 * self.WHERE_EPSILON)


def build_lr_scheduler(cfg: Any, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """Return the scheduler of `build_multiplier`. Step it after every iteration."""
    return LRMultiplier(optimizer, build_multiplier(cfg), cfg.SOLVER.MAX_ITER)


def build_multiplier(cfg: Any) -> ParamScheduler:
    """Return the schedule that SOLVER.LR_SCHEDULER_NAME names, after a warm-up, as a function of the progress.

    Raises:
        UserError: an unknown schedule or warm-up, steps that do not rise, or a final learning rate out of range.
    """
    s = cfg.SOLVER
    builders: dict[str, Callable[[], ParamScheduler]] = {
        "WarmupMultiStepLR": lambda: multi_step(s.STEPS, s.MAX_ITER, s.GAMMA),
        "WarmupCosineLR": lambda: CosineParamScheduler(1, s.BASE_LR_END / s.BASE_LR),
        "WarmupStepWithFixedGammaLR": lambda: StepWithFixedGammaParamScheduler(1.0, s.NUM_DECAYS, s.GAMMA, s.MAX_ITER),
    }
    check_choice("SOLVER.LR_SCHEDULER_NAME", s.LR_SCHEDULER_NAME, builders)
    if s.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= s.BASE_LR_END <= s.BASE_LR:
        raise UserError(f"SOLVER.BASE_LR_END: expected 0 to SOLVER.BASE_LR, {s.BASE_LR}; found {s.BASE_LR_END}")
    names = ("steps", "warmup_method", "warmup_iters", "warmup_factor", "gamma")
    with argument_names({name: f"SOLVER.{name.upper()}" for name in names}):
        return with_warmup(
            builders[s.LR_SCHEDULER_NAME](),
            max_iter=s.MAX_ITER,
            warmup_iters=s.WARMUP_ITERS,
            warmup_factor=s.WARMUP_FACTOR,
            warmup_method=s.WARMUP_METHOD,
            rescale_interval=s.RESCALE_INTERVAL,
        )


def check_steps(steps: Sequence[int], argument: str = "steps") -> None:
    """Raise an ArgumentError unless the iterations rise from at least 1."""
    if any(a >= b for a, b in pairwise([0, *steps])):
        raise ArgumentError(argument, f"expected rising iterations of at least 1, found {list(steps)}")


def multi_step(steps: Sequence[int], max_iter: int, gamma: float = 0.1) -> ParamScheduler:
    """Return a function of the progress that starts at 1 and is multiplied by `gamma` at each step.

    Args:
        steps: rising iterations; those that are not before `max_iter` have no effect, which is logged.
        max_iter: the iteration at which the progress is 1.
        gamma: the factor.

    Raises:
        ArgumentError: the steps do not rise, or `gamma` is not above 0.
    """
    check_steps(steps)
    check_number("gamma", gamma, above=0)
    effective = [x for x in steps if x < max_iter]
    if len(effective) < len(steps):
        logger.warning(
            "The learning-rate steps %s do not come before the end of the run, iteration %d, and have no effect",
            list(steps[len(effective) :]),
            max_iter,
        )
    values = [gamma**k for k in range(len(effective) + 1)]
    return MultiStepParamScheduler(values, milestones=effective, num_updates=max_iter)


def with_warmup(
    scheduler: ParamScheduler,
    *,
    max_iter: int,
    warmup_iters: int = 1000,
    warmup_factor: float = 0.001,
    warmup_method: str = "linear",
    rescale_interval: bool = False,
) -> ParamScheduler:
    """Return a schedule that rises to another one during a warm-up.

    Args:
        scheduler: function of the progress, which is the iteration divided by `max_iter`.
        max_iter: the iteration at which the progress is 1.
        warmup_iters: the length of the warm-up; if the run is shorter, all of it is warm-up, which is logged.
        warmup_factor: the warm-up starts at this factor, from 0 to 1, times the first value of the schedule.
        warmup_method: "linear" rises to the value that the schedule has when the warm-up ends; "constant" does not
            rise.
        rescale_interval: let the schedule start after the warm-up, compressed into the rest of the run.

    Raises:
        ArgumentError: unknown `warmup_method`, or a number is out of its range.
    """
    check_choice("warmup_method", warmup_method, ("linear", "constant"))
    check_count("warmup_iters", warmup_iters, at_least=0)
    check_number("warmup_factor", warmup_factor, at_least=0, at_most=1)
    if warmup_iters > max_iter:
        run = counted(max_iter, "iteration")
        logger.warning("The run of %s ends in its warm-up, which takes %d", run, warmup_iters)
    scheduler = _WithEnd(scheduler)
    share = min(warmup_iters / max_iter, 1.0)
    if share == 0:
        return scheduler
    start = warmup_factor * scheduler(0.0)
    end = scheduler(0.0) if rescale_interval else scheduler(share)
    warmup = LinearParamScheduler(start, end) if warmup_method == "linear" else ConstantParamScheduler(start)
    scaling = ["rescaled", "rescaled" if rescale_interval and share < 1 else "fixed"]
    return CompositeParamScheduler([warmup, scheduler], lengths=[share, 1 - share], interval_scaling=scaling)
