"""Scalars that modules inside the model log, such as samples per image and accuracies.

A module calls `log_scalar`. Outside of `collect_metrics` this does nothing, so the model needs no surrounding context.
Values stay tensors: it is up to the collector to read them, which waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["collect_metrics", "collecting_metrics", "log_scalar", "metrics_under"]

_COLLECTOR: ContextVar[dict[str, Tensor | float] | None] = ContextVar("sn2fpn_metrics", default=None)


@contextmanager
def collect_metrics() -> Iterator[dict[str, Tensor | float]]:
    """Collect what the model logs inside the block in a dict of numbers and tensors without dimensions, by name.

    Example:
        with collect_metrics() as metrics:
            losses = model(batch)
        metrics["rpn/num_pos_anchors"]

    A metric without anything to measure, such as the accuracy on the foreground of images without objects, is NaN.
    """
    collector: dict[str, Tensor | float] = {}
    token = _COLLECTOR.set(collector)
    try:
        yield collector
    finally:
        _COLLECTOR.reset(token)


@contextmanager
def metrics_under(prefix: str) -> Iterator[None]:
    """Put `prefix` in front of the names of what is logged inside the block."""
    if not collecting_metrics():
        yield
        return
    with collect_metrics() as inner:
        yield
    for name, value in inner.items():
        log_scalar(f"{prefix}{name}", value)


def collecting_metrics() -> bool:
    """Return whether metrics are being collected. It guards work that is done for logging only."""
    return _COLLECTOR.get() is not None


def log_scalar(name: str, value: Tensor | float) -> None:
    """Store a scalar under `name` if metrics are being collected."""
    collector = _COLLECTOR.get()
    if collector is not None:
        collector[name] = value.detach() if isinstance(value, torch.Tensor) else value
