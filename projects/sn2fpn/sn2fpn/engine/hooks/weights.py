"""What a run keeps of its weights: a moving average and checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .base import Hook

__all__ = ["EMA", "Checkpoints"]

logger = logging.getLogger(__name__)


class EMA(Hook):
    """An exponential moving average of the weights: e <- decay * e + (1 - decay) * w after every step.

    Floating-point buffers, such as the statistics of norms, are averaged too; other buffers are copied.

    Args:
        model: the model whose weights are averaged.
        decay: the decay, from 0 to 1.

    Attributes:
        average: the averaged state dict.
    """

    checkpoint_key = "ema"

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._step_to = get_ema_multi_avg_fn(decay)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self._restored = False

    def before_train(self) -> None:
        if self._restored:
            return
        self._copy(self._model.state_dict())  # the average starts from weights that may have been loaded
        if self.trainer.start_iter:
            logger.warning(
                "The checkpoint holds no moving average of the weights, so the average starts at iteration %d from the "
                "weights of the checkpoint",
                self.trainer.start_iter,
            )

    def after_step(self) -> None:
        own = self._model.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        self._step_to([self.average[name] for name in floats], [own.pop(name) for name in floats], 0)
        if own:  # such as the number of batches that a norm has seen
            torch._foreach_copy_([self.average[name] for name in own], list(own.values()))

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the averaged weights inside this context."""
        own = {k: v.detach().clone() for k, v in self._model.state_dict().items()}
        self._model.load_state_dict(self.average)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.average

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._copy(state)
        self._restored = True

    def _copy(self, state: dict[str, torch.Tensor]) -> None:
        for name, value in state.items():
            if name in self.average:
                self.average[name].copy_(value)


class Checkpoints(Hook):
    """Writes `model_0004999.pth` and so on every `period` iterations, and `model_final.pth` at the end."""

    def __init__(self, period: int) -> None:
        self.period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done < self.trainer.max_iter and done % self.period == 0:
            self.trainer.save(f"model_{self.trainer.iter:07d}")

    def after_train(self) -> None:
        self.trainer.save("model_final")
