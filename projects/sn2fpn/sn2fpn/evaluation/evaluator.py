"""The interface of evaluators, and the loop that runs a model over a data set for them."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..distributed import get_world_size
from ..errors import counted

__all__ = ["DatasetEvaluator", "DatasetEvaluators", "evaluation_mode", "inference_on_dataset"]

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, float]]


class DatasetEvaluator:
    """The interface of an evaluator, which processes all inputs and outputs of a model and then computes scores.

    `reset` is called first, `process` for each batch, and `evaluate` at the end. All processes call `evaluate`, which
    gathers their data.
    """

    def reset(self) -> None:
        """Discard all data."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Process the inputs of one batch and, in the same order, the outputs of the model."""
        raise NotImplementedError

    def evaluate(self) -> Results:
        """Return `{task: {metric: score}}` in the main process and `{}` in the others."""
        raise NotImplementedError


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators that are used as one. Their results must be for different tasks."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = list(evaluators)

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> Results:
        merged: Results = {}
        for evaluator in self._evaluators:
            results = evaluator.evaluate() or {}
            if both := merged.keys() & results.keys():
                raise ValueError(f"two evaluators return results for {sorted(both)}; use them one by one")
            merged.update(results)
        return merged


def inference_on_dataset(
    model: nn.Module | Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    data_loader: Iterable[list[dict[str, Any]]],
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    log_period_s: float = 5.0,
) -> Results:
    """Run a model over this process's share of a data set, and evaluate the shares of all processes.

    A module runs in evaluation mode and without gradients; afterwards, each of its submodules has its previous mode.
    The progress is logged: images per second, the time for data, model and evaluator, and the remaining time.

    Args:
        model: a callable that returns one output dict per input dict of a batch.
        data_loader: batches of input dicts; it must have a length.
        evaluator: one or several evaluators, or None to measure only the speed.
        log_period_s: seconds between two progress messages.

    Returns:
        `{task: {metric: score}}` in the main process and `{}` in the others.
    """
    if evaluator is None or isinstance(evaluator, Sequence):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    batches = len(data_loader)  # type: ignore[arg-type]
    processes = get_world_size()
    where = f" in each of {processes} processes" if processes > 1 else ""
    logger.info("evaluating on %s%s", counted(batches, "batch", "batches"), where)
    clock = _Clock(batches, warmup=min(5, max(batches - 1, 0)), log_period_s=log_period_s)
    with evaluation_mode(model), torch.no_grad():
        before = time.perf_counter()
        for inputs in data_loader:
            loaded = time.perf_counter()
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            computed = time.perf_counter()
            evaluator.process(inputs, outputs)
            after = time.perf_counter()
            clock.tick(len(inputs), loaded - before, computed - loaded, after - computed)
            before = after
    clock.report(final=True)
    return evaluator.evaluate() or {}  # an evaluator of scripts may return None


@dataclass
class _Clock:
    """A clock that adds up the time for data, model and evaluator, and logs it from time to time."""

    batches: int
    warmup: int  # number of first batches that do not count, because caches and workers still start
    log_period_s: float
    done: int = 0
    images: int = 0
    data_s: float = 0.0
    model_s: float = 0.0
    evaluator_s: float = 0.0
    logged_at: float = 0.0

    def tick(self, images: int, data_s: float, model_s: float, evaluator_s: float) -> None:
        if self.done == self.warmup:
            self.images, self.data_s, self.model_s, self.evaluator_s = 0, 0.0, 0.0, 0.0
        self.done += 1
        self.images += images
        self.data_s += data_s
        self.model_s += model_s
        self.evaluator_s += evaluator_s
        now = time.monotonic()
        if now - self.logged_at >= self.log_period_s and self.done < self.batches:
            if self.logged_at:
                self.report()
            self.logged_at = now

    def report(self, final: bool = False) -> None:
        if not self.images:
            return
        total_s = self.data_s + self.model_s + self.evaluator_s
        measured = self.done - self.warmup if self.done > self.warmup else self.done
        eta_s = 0 if final else total_s / measured * (self.batches - self.done)
        logger.info(
            "%s %d/%d batches: %.2f images/s; per image %.4f s data, %.4f s model, %.4f s evaluator%s",
            "evaluated" if final else "evaluating,",
            self.done,
            self.batches,
            self.images / max(total_s, 1e-9),
            self.data_s / self.images,
            self.model_s / self.images,
            self.evaluator_s / self.images,
            "" if final else f"; ETA {datetime.timedelta(seconds=round(eta_s))}",
        )


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode, and restore the mode of each submodule afterwards."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
