"""Detectors whose inference and training steps are measured by stage: seconds and floating-point operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import nn

from sn2fpn.study.measure.timing import now

from .engines import STAGES, Engine
from .flops import FlopCounter

__all__ = ["OTHER", "Contender", "precision_dtype"]

OTHER = "pre- and post-processing"


def precision_dtype(name: str) -> torch.dtype | None:
    """Return the dtype of mixed precision, or None for "float32"."""
    return None if name == "float32" else getattr(torch, name)


class Contender:
    """An engine in one precision. Contenders of the same engine share its model.

    Args:
        engine: the engine.
        precision: "float32", or the dtype of autocast.
        device: the device of the model.

    Attributes:
        rounds: the seconds of each stage and their "total", for each call of `infer` and `train` since `clear`.
        gflop: 10^9 floating-point operations by mode and stage, once they were counted.
        work: the numbers of proposals and of detections per image.
    """

    def __init__(self, engine: Engine, precision: str, device: str) -> None:
        self._engine, self._device = engine, device
        self._dtype = precision_dtype(precision)
        self._scaler = torch.amp.GradScaler(torch.device(device).type, enabled=self._dtype == torch.float16)
        self._counter: FlopCounter | None = None
        self.rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
        self.gflop: dict[str, dict[str, float]] = {}
        self.work: dict[str, list[int]] = {}
        self._now: dict[str, float] = {}

    def run(self, mode: str, batch: list[dict[str, Any]]) -> None:
        """Make one "inference" or one "training" step, and keep the seconds of its stages."""
        with self._watch_stages():
            self.rounds[mode].append(self._infer(batch) if mode == "inference" else self._train(batch))

    def count(self, mode: str, batch: list[dict[str, Any]]) -> None:
        """Count the operations of each stage. The same call warms up."""
        with FlopCounter() as self._counter:
            self.run(mode, batch)
        self._counter = None
        self.gflop[mode] = {name: value / 1e9 for name, value in self.rounds[mode].pop().items()}

    def medians(self, mode: str, skip: int) -> dict[str, float]:
        """Return the median seconds of each stage over all rounds but the first ones."""
        rounds = self.rounds[mode][skip:]
        return {name: median(r[name] for r in rounds) for name in rounds[0]}

    def clear(self) -> None:
        self.rounds.clear()

    def _read(self) -> float:
        """Return the clock, or the number of operations where these are counted."""
        return now() if self._counter is None else float(self._counter.get_total_flops())

    def _infer(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        self._engine.model.eval()
        with torch.no_grad(), self._engine.autocast(self._device, self._dtype):
            started = self._read()
            out = self._engine.feed(self._engine.model, batch)
            total = self._read() - started
        self.work["detections"] = [len(o["instances"]) if "instances" in o else len(o["boxes"]) for o in out]
        return {"total": total, **self._stages(), OTHER: total - sum(self._stages().values())}

    def _train(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        self._engine.model.train()
        torch.manual_seed(0)
        times = [self._read()]
        with self._engine.autocast(self._device, self._dtype):
            loss = sum(self._engine.feed(self._engine.model, batch).values())
        times.append(self._read())
        self._scaler.scale(loss).backward()
        times.append(self._read())
        self._scaler.step(self._engine.optimizer)
        self._scaler.update()
        self._engine.optimizer.zero_grad(set_to_none=True)
        times.append(self._read())
        steps = zip(("forward", "backward", "optimizer"), times, times[1:])
        return {"total": times[-1] - times[0], **self._stages(), **{name: end - start for name, start, end in steps}}

    def _stages(self) -> dict[str, float]:
        return {name: self._now[name] for name in STAGES}

    @contextmanager
    def _watch_stages(self) -> Iterator[None]:
        """Add up what the stages take, by hooks that exist inside this context only."""
        self._now = dict.fromkeys(STAGES, 0.0)
        handles = []
        for name, module in self._engine.stages.items():
            handles.append(module.register_forward_pre_hook(self._begin(name)))
            handles.append(module.register_forward_hook(self._end(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any) -> None:
            self._now[name] -= self._read()

        return hook

    def _end(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            self._now[name] += self._read()
            if name == "RPN" and not module.training:
                self.work["proposals"] = [len(p) for p in output[0]]

        return hook
