"""Scalars logged from inside the model (samples per image, accuracies), for whoever listens.

A module calls `log_scalar`; outside of `collect_metrics` that does nothing, so that the model needs no
surrounding context. Values stay tensors: reading them (which waits for a GPU) is up to the collector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["collect_metrics", "collecting_metrics", "log_scalar"]

_COLLECTOR: ContextVar[dict[str, Tensor | float] | None] = ContextVar("sn2fpn_metrics", default=None)


@contextmanager
def collect_metrics() -> Iterator[dict[str, Tensor | float]]:
    """Collect what the model logs inside the block, as a dict name -> number or 0-dim tensor.

    Example:
        with collect_metrics() as metrics:
            losses = model(batch)
        metrics["rpn/num_pos_anchors"]
    """
    collector: dict[str, Tensor | float] = {}
    token = _COLLECTOR.set(collector)
    try:
        yield collector
    finally:
        _COLLECTOR.reset(token)


def collecting_metrics() -> bool:
    """Whether anybody listens: guards work that is done for logging alone."""
    return _COLLECTOR.get() is not None


def log_scalar(name: str, value: Tensor | float) -> None:
    """Store one scalar under `name` in the open collector, if there is one."""
    collector = _COLLECTOR.get()
    if collector is not None:
        collector[name] = value.detach() if isinstance(value, torch.Tensor) else value
