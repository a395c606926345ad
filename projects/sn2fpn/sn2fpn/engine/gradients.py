"""The gradients of a batch, which is computed in parts if it does not fit into memory at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..modeling.metrics import collect_metrics
from ..precision import autocast
from .cuda_graphs import graphs_of_backbone
from .options import RunOptions
from .parallel import averaging

__all__ = ["Gradients", "image_names"]


class Gradients:
    """Forward and backward passes of a model, whose gradients add up to those of a whole batch.

    Several processes average their gradients with those of the last part.

    Args:
        model: gives the losses of a list of images.
        options: of the run: its device, its precision, and the number of parts of a batch (`accumulate_steps`).

    Attributes:
        graphs: the context in which the model computes, see `graphs_of_backbone`.
    """

    def __init__(self, model: nn.Module, options: RunOptions) -> None:
        self._options = options
        self.graphs = graphs_of_backbone(model, options)
        self._model = averaging(model, options)
        self._averages = self._model is not model

    def add(
        self, batch: Sequence[dict[str, Any]], scaler: torch.amp.GradScaler
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | float]]:
        """Add the gradients of a batch to those of the parameters.

        The parts of a batch differ in size where their number does not divide it, as in batches of the user's own
        loader.

        Args:
            batch: the images.
            scaler: scales the losses.

        Returns:
            The losses and the metrics, which are means over the images.

        Raises:
            FloatingPointError: the model found values that are not finite; the message names the images.
        """
        size, number = len(batch), min(self._options.accumulate_steps, len(batch))
        parts: list[tuple[float, dict[str, Tensor], dict[str, Tensor | float]]] = []
        for start, end in pairwise(size * i // number for i in range(number + 1)):
            weight = (end - start) / size
            with self._model.no_sync() if self._averages and end < size else nullcontext():
                losses, metrics = self._pass(batch[start:end], weight, scaler)
            parts.append((weight, {name: loss.detach() for name, loss in losses.items()}, metrics))
        losses: dict[str, Tensor] = {}
        for weight, part, _ in parts:
            losses |= {name: losses.get(name, 0) + loss * weight for name, loss in part.items()}
        return losses, _means([metrics for *_, metrics in parts], [weight for weight, *_ in parts])

    def _pass(
        self, part: Sequence[dict[str, Any]], weight: float, scaler: torch.amp.GradScaler
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | float]]:
        try:
            with collect_metrics() as metrics, self.graphs, autocast(self._options.device, self._options.precision):
                losses = self._model(part)
        except FloatingPointError as e:
            raise FloatingPointError(f"{e} on images {', '.join(image_names(part))}") from None
        scaler.scale(sum(losses.values()) * weight).backward()
        return losses, metrics


def _means(parts: Sequence[Mapping[str, Tensor | float]], weights: Sequence[float]) -> dict[str, Tensor | float]:
    """Return the weighted mean of each metric over the parts that have it."""
    if len(parts) == 1:
        return dict(parts[0])
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _mean([(part[name], w) for part, w in zip(parts, weights) if name in part]) for name in names}


def _mean(values: Sequence[tuple[Tensor | float, float]]) -> Tensor | float:
    """Return the mean of numbers with weights. NaN stands for no number, also in the result. No GPU is waited for."""
    numbers = [(torch.as_tensor(value), weight) for value, weight in values]
    total = sum(torch.where(number.isnan(), 0.0, number) * weight for number, weight in numbers)
    mean = total / sum(~number.isnan() * weight for number, weight in numbers)
    return mean if any(isinstance(value, Tensor) for value, _ in values) else mean.item()


def image_names(batch: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the images of a batch, for messages."""
    return [str(x.get("image_id", x.get("file_name"))) for x in batch]
