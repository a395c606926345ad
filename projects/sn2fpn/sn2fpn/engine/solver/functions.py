"""Functions of the progress of a run, of which learning-rate schedules are made.

The progress is the iteration divided by the number of iterations, from 0 to 1. Names, arguments and values are those of
fvcore's functions, which may stand in their place.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from ...detectron2_types import ScheduleBase
from ...errors import ArgumentError, check_choice
from ...ranges import check_count, check_number

__all__ = [
    "CompositeParamScheduler",
    "ConstantParamScheduler",
    "CosineParamScheduler",
    "ExponentialParamScheduler",
    "LinearParamScheduler",
    "MultiStepParamScheduler",
    "ParamScheduler",
    "PolynomialDecayParamScheduler",
    "StepParamScheduler",
    "StepWithFixedGammaParamScheduler",
]


class ParamScheduler(ScheduleBase):
    """A function of the progress, from 0 to 1, for example the factor on a learning rate."""

    WHERE_EPSILON = 1e-6
    """What is added to the progress before it is compared with a step, because it is a rounded quotient."""

    def __call__(self, where: float) -> float:
        """Return the value at the progress `where`."""
        raise NotImplementedError


class ConstantParamScheduler(ParamScheduler):
    """The same value everywhere."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __call__(self, where: float) -> float:
        return self._value


class LinearParamScheduler(ParamScheduler):
    """A straight line from `start_value` to `end_value`."""

    def __init__(self, start_value: float, end_value: float) -> None:
        self._start, self._end = start_value, end_value

    def __call__(self, where: float) -> float:
        return self._end * where + self._start * (1 - where)


class CosineParamScheduler(ParamScheduler):
    """Half a period of a cosine from `start_value` to `end_value` (SGDR, arXiv 1608.03983, without restarts)."""

    def __init__(self, start_value: float, end_value: float) -> None:
        self._start, self._end = start_value, end_value

    def __call__(self, where: float) -> float:
        return self._end + 0.5 * (self._start - self._end) * (1 + math.cos(math.pi * where))


class ExponentialParamScheduler(ParamScheduler):
    """`start_value * decay ** where`, which ends at `start_value * decay`."""

    def __init__(self, start_value: float, decay: float) -> None:
        self._start, self._decay = start_value, decay

    def __call__(self, where: float) -> float:
        return self._start * self._decay**where


class PolynomialDecayParamScheduler(ParamScheduler):
    """`base_value * (1 - where) ** power`, which ends at 0."""

    def __init__(self, base_value: float, power: float) -> None:
        self._base, self._power = base_value, power

    def __call__(self, where: float) -> float:
        return self._base * (1 - where) ** self._power


class StepParamScheduler(ParamScheduler):
    """Values that each hold for the same share of the run.

    Args:
        num_updates: the number of iterations, which has no effect.
        values: the values in their order.

    Raises:
        ArgumentError: `num_updates` is not above 0, or there are no values.
    """

    def __init__(self, num_updates: float, values: Sequence[float]) -> None:
        check_number("num_updates", num_updates, above=0)
        if not values:
            raise ArgumentError("values", "expected at least one value, found none")
        self._values = values

    def __call__(self, where: float) -> float:
        return self._values[min(int((where + self.WHERE_EPSILON) * len(self._values)), len(self._values) - 1)]


class StepWithFixedGammaParamScheduler(StepParamScheduler):
    """A value that is multiplied by `gamma` after equal shares of the run.

    Args:
        base_value: the first value.
        num_decays: how often the value is multiplied.
        gamma: the factor.
        num_updates: the number of iterations, which has no effect.

    Raises:
        ArgumentError: an argument is not above 0, or one of the two counts is no whole number.
    """

    def __init__(self, base_value: float, num_decays: int, gamma: float, num_updates: int) -> None:
        check_number("base_value", base_value, above=0)
        check_count("num_decays", num_decays)
        check_number("gamma", gamma, above=0)
        check_count("num_updates", num_updates)
        super().__init__(num_updates, list(accumulate([gamma] * num_decays, lambda a, b: a * b, initial=base_value)))


class MultiStepParamScheduler(ParamScheduler):
    """Values that change at milestones.

    Args:
        values: the values in their order.
        num_updates: the number of iterations; None takes the last milestone.
        milestones: the rising iterations at which the next value begins; None divides `num_updates` evenly.

    Raises:
        ArgumentError: both numbers are None, there is not one value more than there are milestones, or the milestones
            do not rise from at least 1 to less than `num_updates`.
    """

    def __init__(
        self, values: Sequence[float], num_updates: int | None = None, milestones: Sequence[int] | None = None
    ) -> None:
        if milestones is None:
            if num_updates is None:
                raise ArgumentError("milestones", "expected iterations, because num_updates is None; found None")
            width = math.ceil(num_updates / len(values))
            milestones = [width * (n + 1) for n in range(len(values) - 1)]
        elif num_updates is None:
            *milestones, num_updates = milestones
        if len(milestones) != len(values) - 1:
            problem = f"expected one less than the {len(values)} values, found {len(milestones)}"
            raise ArgumentError("milestones", problem)
        if any(a >= b for a, b in pairwise([0, *milestones, num_updates])):
            problem = f"expected rising iterations from 1 to less than {num_updates}, found {list(milestones)}"
            raise ArgumentError("milestones", problem)
        self._values, self._num_updates, self._milestones = values, num_updates, milestones

    def __call__(self, where: float) -> float:
        iteration = int((where + self.WHERE_EPSILON) * self._num_updates)
        return self._values[bisect_right(self._milestones, iteration)]


class CompositeParamScheduler(ParamScheduler):
    """Functions that follow each other.

    Args:
        schedulers: the functions in their order.
        lengths: the share of the run that each takes; together 1.
        interval_scaling: for each function, "rescaled" compresses all of it into its share, and "fixed" takes the part
            of it that it has there.

    Raises:
        ArgumentError: the three lists differ in length or are empty, the shares do not sum to 1, or another scaling.
    """

    def __init__(
        self, schedulers: Sequence[ParamScheduler], lengths: Sequence[float], interval_scaling: Sequence[str]
    ) -> None:
        if not len(schedulers) == len(lengths) == len(interval_scaling) > 0:
            found = f"{len(schedulers)}, {len(lengths)} and {len(interval_scaling)}"
            raise ArgumentError("schedulers", f"expected as many as lengths and interval_scaling, found {found}")
        if abs(sum(lengths) - 1) >= 1e-3:
            raise ArgumentError("lengths", f"expected shares that sum to 1, found {list(lengths)}")
        for scaling in interval_scaling:
            check_choice("interval_scaling", scaling, ("rescaled", "fixed"))
        if sum(lengths) != 1:
            lengths = [*lengths[:-1], 1 - sum(lengths[:-1])]
        self._parts = list(zip(schedulers, lengths, accumulate(lengths), interval_scaling))

    def __call__(self, where: float) -> float:
        reached = (part for part in self._parts if where + self.WHERE_EPSILON <= part[2])
        scheduler, length, end, scaling = next(reached, self._parts[-1])
        return scheduler((where - (end - length)) / length if scaling == "rescaled" else where)
