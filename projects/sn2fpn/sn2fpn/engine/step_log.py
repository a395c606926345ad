"""What the steps of a training have computed, read from the device now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import distributed as comm
from .writers import MetricStorage

__all__ = ["NotFinite", "StepLog"]


class NotFinite(Exception):
    """A loss of a step is not finite; the message has the losses and the images of the step.

    Attributes:
        iteration: the iteration of the step.
    """

    def __init__(self, iteration: int, message: str) -> None:
        super().__init__(message)
        self.iteration = iteration


@dataclass(frozen=True)
class _Step:
    iteration: int
    images: Sequence[str]
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor | float]
    started: float
    numbers: Mapping[str, float]


class StepLog:
    """The losses and metrics of steps, which stay tensors until those of several steps are read at once.

    To read a number from a GPU is to wait until it has done all that it was asked to do, and it then has nothing to do
    until the next step is prepared.

    Args:
        storage: receives what was read.
    """

    def __init__(self, storage: MetricStorage) -> None:
        self._storage = storage
        self._steps: list[_Step] = []

    def add(
        self,
        iteration: int,
        images: Sequence[str],
        losses: Mapping[str, Tensor],
        metrics: Mapping[str, Tensor | float],
        started: float,
        **numbers: float,
    ) -> None:
        """Add a step.

        Args:
            iteration: the iteration, counted from 0.
            images: the names of its images, for the message of an error.
            losses: the losses of this process, one or more. All steps and all processes have the same ones.
            metrics: other scalars of this process, which may differ from step to step. NaN stands for no value.
            started: when the step has begun, by `time.perf_counter`.
            numbers: further numbers to store.
        """
        self._steps.append(_Step(iteration, images, losses, metrics, started, numbers))

    def read(self) -> None:
        """Put the values of the steps since the last call into the storage. All processes take part.

        The time of each step is the mean over these steps, because a GPU still works on one while others are prepared.

        Raises:
            NotFinite: a loss of some process is not finite. The storage then holds the steps before.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = {name: torch.stack([s.losses[name].detach().float() for s in steps]) for name in steps[0].losses}
        means = comm.reduce_mean(losses)
        tensors = [v for s in steps for v in s.metrics.values() if isinstance(v, Tensor)]
        rows = _read([*losses.values(), *means.values(), *tensors])
        own_rows, mean_rows, others = rows[: len(losses)], rows[len(losses) : 2 * len(losses)], rows[2 * len(losses) :]
        scalars = iter(others)
        seconds = (time.perf_counter() - steps[0].started) / len(steps)
        for i, step in enumerate(steps):
            values = {name: row[i] for name, row in zip(means, mean_rows)}
            if not all(map(math.isfinite, values.values())):  # all processes find this at the same step
                own = {name: row[i] for name, row in zip(losses, own_rows)}
                raise NotFinite(step.iteration, _account(own, values, step.images))
            values["total_loss"] = sum(values.values())
            metrics = {k: next(scalars)[0] if isinstance(v, Tensor) else v for k, v in step.metrics.items()}
            values |= {k: v for k, v in metrics.items() if not math.isnan(v)}
            self._storage.put(values | step.numbers | {"time": seconds}, step.iteration)


def _account(own: Mapping[str, float], means: Mapping[str, float], images: Sequence[str]) -> str:
    """Return the losses and images of all processes whose losses are not finite."""
    finite = all(map(math.isfinite, own.values()))
    found = comm.all_gather("" if finite else f"{own} on images {', '.join(images)}")
    return "; ".join(filter(None, found)) or f"{means} as the mean over the processes"


def _read(tensors: Sequence[Tensor]) -> list[list[float]]:
    """Return the numbers of each tensor, which come from the device in one transfer."""
    numbers = iter(torch.cat([t.detach().flatten().double() for t in tensors]).tolist())
    return [[next(numbers) for _ in range(t.numel())] for t in tensors]
