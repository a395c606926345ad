"""Optimizer and learning-rate schedule from `SOLVER.*`, with Detectron2's rules."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim.lr_scheduler import LRScheduler

from ..errors import UserError, did_you_mean

__all__ = [
    "GradientClipper",
    "LRMultiplier",
    "build_gradient_clipper",
    "build_lr_scheduler",
    "build_optimizer",
    "check_steps",
    "gradient_clipper",
    "multi_step",
    "parameter_groups",
    "with_warmup",
]

logger = logging.getLogger(__name__)

GradientClipper = Callable[[list[nn.Parameter]], None]

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """SGD over the trainable parameters, one group per distinct (learning rate, weight decay).

    Affine parameters of norms take SOLVER.WEIGHT_DECAY_NORM; parameters named `bias` take
    SOLVER.BIAS_LR_FACTOR and, unless None, SOLVER.WEIGHT_DECAY_BIAS (also the biases of norms).

    Raises:
        UserError: nothing is trainable.
    """
    s = cfg.SOLVER
    params = parameter_groups(
        model,
        base_lr=s.BASE_LR,
        weight_decay=s.WEIGHT_DECAY,
        weight_decay_norm=s.WEIGHT_DECAY_NORM,
        weight_decay_bias=s.WEIGHT_DECAY_BIAS,
        bias_lr_factor=s.BIAS_LR_FACTOR,
    )
    return torch.optim.SGD(
        params, lr=s.BASE_LR, momentum=s.MOMENTUM, nesterov=s.NESTEROV, weight_decay=s.WEIGHT_DECAY, fused=True
    )


def parameter_groups(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    weight_decay_norm: float = 0.0,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """The trainable parameters for an optimizer, see `build_optimizer`.

    Args:
        base_lr, weight_decay: of all but the exceptions below.
        weight_decay_norm: of the affine parameters of norms.
        weight_decay_bias: of parameters named `bias`; None: as others.
        bias_lr_factor: on the learning rate of parameters named `bias`.

    Raises:
        UserError: nothing is trainable.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if not p.requires_grad or p in seen:
                continue
            seen.add(p)
            lr, decay = base_lr, weight_decay
            if isinstance(module, _NORMS):
                decay = weight_decay_norm
            if name == "bias":
                lr *= bias_lr_factor
                decay = decay if weight_decay_bias is None else weight_decay_bias
            groups[lr, decay].append(p)
    if not groups:
        raise UserError("the model has no trainable parameter: lower the trunk's freeze_at (MODEL.BACKBONE.FREEZE_AT)")
    return [{"params": ps, "lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()]


def build_gradient_clipper(cfg: Any) -> GradientClipper | None:
    """The clipping of SOLVER.CLIP_GRADIENTS, or None when it is off."""
    c = cfg.SOLVER.CLIP_GRADIENTS
    return gradient_clipper(c.CLIP_TYPE, c.CLIP_VALUE, c.NORM_TYPE) if c.ENABLED else None


def gradient_clipper(
    clip_type: str, clip_value: float, norm_type: float = 2.0, key: str = "SOLVER.CLIP_GRADIENTS.CLIP_TYPE"
) -> GradientClipper:
    """A function that clips gradients in place; `key` names `clip_type` in messages.

    As in Detectron2, "value" clamps every entry and "norm" bounds the norm of *each parameter's*
    gradient; "full_norm" bounds the norm over all parameters together.
    """

    def clip(params: list[nn.Parameter]) -> None:
        params = [p for p in params if p.grad is not None]
        if clip_type == "value":
            nn.utils.clip_grad_value_(params, clip_value)
        elif clip_type == "norm":
            for p in params:
                nn.utils.clip_grad_norm_(p, clip_value, norm_type)
        else:
            nn.utils.clip_grad_norm_(params, clip_value, norm_type)

    kinds = ("value", "norm", "full_norm")
    if clip_type not in kinds:
        raise UserError(f"{key}: unknown {clip_type!r}{did_you_mean(clip_type, kinds)}")
    return clip


class LRMultiplier(LRScheduler):
    """Multiplies every group's initial learning rate by a schedule of progress (iteration / max_iter).

    Its state is only `base_lrs` and `last_epoch` (the iteration), so a run may be resumed with a
    changed schedule.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": list(self.base_lrs), "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]
        for group, lr in zip(self.optimizer.param_groups, self.get_lr()):
            group["lr"] = lr

    def get_lr(self) -> list[float]:
        multiplier = self._multiplier(min(self.last_epoch / self._max_iter, 1.0))
        return [base * multiplier for base in self.base_lrs]


def build_lr_scheduler(cfg: Any, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """The schedule named by SOLVER.LR_SCHEDULER_NAME behind a warm-up; step it after every iteration."""
    s = cfg.SOLVER
    builders: dict[str, Callable[[], ParamScheduler]] = {
        "WarmupMultiStepLR": lambda: multi_step(s.STEPS, s.MAX_ITER, s.GAMMA),
        "WarmupCosineLR": lambda: CosineParamScheduler(1, s.BASE_LR_END / s.BASE_LR),
        "WarmupStepWithFixedGammaLR": lambda: StepWithFixedGammaParamScheduler(1.0, s.NUM_DECAYS, s.GAMMA, s.MAX_ITER),
    }
    if s.LR_SCHEDULER_NAME not in builders:
        hint = did_you_mean(s.LR_SCHEDULER_NAME, builders)
        raise UserError(f"SOLVER.LR_SCHEDULER_NAME: unknown schedule {s.LR_SCHEDULER_NAME!r}{hint}")
    if s.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= s.BASE_LR_END <= s.BASE_LR:
        raise UserError(f"SOLVER.BASE_LR_END: expected 0 to BASE_LR ({s.BASE_LR}), found {s.BASE_LR_END}")
    multiplier = with_warmup(
        builders[s.LR_SCHEDULER_NAME](),
        max_iter=s.MAX_ITER,
        warmup_iters=s.WARMUP_ITERS,
        warmup_factor=s.WARMUP_FACTOR,
        warmup_method=s.WARMUP_METHOD,
        rescale_interval=s.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier, s.MAX_ITER)


def check_steps(steps: Sequence[int]) -> None:
    """Raise UserError unless the iterations rise."""
    if any(a >= b for a, b in pairwise(steps)):
        raise UserError(f"SOLVER.STEPS: expected rising iterations, found {list(steps)}")


def multi_step(steps: Sequence[int], max_iter: int, gamma: float = 0.1) -> ParamScheduler:
    """1 until iteration `steps[0]`, then times `gamma` at every step; a function of progress (0 to 1).

    Raises:
        UserError: steps that do not rise.
    """
    check_steps(steps)
    effective = [x for x in steps if x <= max_iter]
    if len(effective) < len(steps):
        beyond = [x for x in steps if x > max_iter]
        logger.warning(
            "the learning rate's steps %s lie beyond the last iteration (%d) and have no effect", beyond, max_iter
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
    """From `warmup_factor` times a schedule's first value up to where it is when the warm-up ends.

    Args:
        scheduler: a function of progress (iteration / max_iter).
        warmup_method: "linear", or "constant": no rise until the warm-up ends.
        rescale_interval: the schedule starts after the warm-up and is compressed into what is left.

    Raises:
        UserError: unknown `warmup_method`.
    """
    share = min(warmup_iters / max_iter, 1.0)
    if share == 0:
        return scheduler
    if warmup_method not in ("linear", "constant"):
        hint = did_you_mean(warmup_method, ("linear", "constant"))
        raise UserError(f"SOLVER.WARMUP_METHOD: unknown {warmup_method!r}{hint}")
    start = warmup_factor * scheduler(0.0)
    end = scheduler(0.0) if rescale_interval else scheduler(share)
    warmup = LinearParamScheduler(start, end) if warmup_method == "linear" else ConstantParamScheduler(start)
    if share == 1:
        return warmup
    scaling = ["rescaled", "rescaled" if rescale_interval else "fixed"]
    return CompositeParamScheduler([warmup, scheduler], lengths=[share, 1 - share], interval_scaling=scaling)
