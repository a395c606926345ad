"""Detectron2's `solver`: optimizers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..engine.solver import LRMultiplier, build_gradient_clipper, build_lr_scheduler, with_warmup
from ..engine.solver import build_optimizer as _build_optimizer
from .absent import absent

__all__ = ["LRMultiplier", "WarmupParamScheduler", "build_lr_scheduler", "build_optimizer"]

__getattr__ = absent(__name__, __all__)

_STEPS = 10**9
"""The iterations of a run in which the share of the warm-up is counted, since a share is all that is known of it."""


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a model's trainable parameters, which clips gradients by `SOLVER.CLIP_GRADIENTS`.

    It clips at the beginning of each step. A `DefaultTrainer` clips in its place.

    Raises:
        UserError: see `sn2fpn.engine.build_optimizer`; or a key of `SOLVER.CLIP_GRADIENTS` has a wrong value.
    """
    optimizer = _build_optimizer(cfg, model)
    clip = build_gradient_clipper(cfg)
    if clip is not None:
        optimizer._step_supports_amp_scaling = False  # a GradScaler then divides the gradients by its scale before
        optimizer.clipping = optimizer.register_step_pre_hook(lambda o, *_: clip(_parameters(o)))
    return optimizer


def leave_clipping(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer that no longer clips gradients by itself, for a loop that does so."""
    if hasattr(optimizer, "clipping"):
        optimizer.clipping.remove()
    return optimizer


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def WarmupParamScheduler(
    scheduler: Any,
    warmup_factor: float,
    warmup_length: float,
    warmup_method: str = "linear",
    rescale_interval: bool = False,
) -> Callable[[float], float]:
    """Return a schedule that rises to another one during a warm-up; see `sn2fpn.engine.solver.with_warmup`.

    Args:
        scheduler: function of the progress, from 0 to 1.
        warmup_factor: the warm-up starts at this factor, from 0 to 1, times the first value of the schedule.
        warmup_length: the share of the run, from 0 to 1, that the warm-up takes.
        warmup_method: "linear" or "constant".
        rescale_interval: let the schedule start after the warm-up, compressed into the rest of the run.

    Raises:
        ArgumentError: unknown `warmup_method`, or a number is out of its range.
    """
    return with_warmup(
        scheduler,
        max_iter=_STEPS,
        warmup_iters=round(warmup_length * _STEPS),
        warmup_factor=warmup_factor,
        warmup_method=warmup_method,
        rescale_interval=rescale_interval,
    )
