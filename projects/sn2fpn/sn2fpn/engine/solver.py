"""Optimizer and learning-rate schedule from `SOLVER.*`, with Detectron2's rules."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
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

__all__ = ["LRMultiplier", "build_gradient_clipper", "build_lr_scheduler", "build_optimizer"]

logger = logging.getLogger(__name__)

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """SGD over the trainable parameters, one group per distinct (learning rate, weight decay).

    Affine parameters of norms take SOLVER.WEIGHT_DECAY_NORM; parameters named `bias` take
    SOLVER.BIAS_LR_FACTOR and, unless None, SOLVER.WEIGHT_DECAY_BIAS (also the biases of norms).

    Raises:
        UserError: nothing is trainable.
    """
    s = cfg.SOLVER
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if not p.requires_grad or p in seen:
                continue
            seen.add(p)
            lr, decay = s.BASE_LR, s.WEIGHT_DECAY
            if isinstance(module, _NORMS):
                decay = s.WEIGHT_DECAY_NORM
            if name == "bias":
                lr *= s.BIAS_LR_FACTOR
                decay = decay if s.WEIGHT_DECAY_BIAS is None else s.WEIGHT_DECAY_BIAS
            groups[lr, decay].append(p)
    if not groups:
        raise UserError("MODEL.BACKBONE.FREEZE_AT leaves no trainable parameter")
    params = [{"params": ps, "lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()]
    return torch.optim.SGD(params, lr=s.BASE_LR, momentum=s.MOMENTUM, nesterov=s.NESTEROV,
                           weight_decay=s.WEIGHT_DECAY, foreach=True)


def build_gradient_clipper(cfg: Any) -> Callable[[list[nn.Parameter]], None] | None:
    """A function that clips gradients in place, or None when SOLVER.CLIP_GRADIENTS is off.

    As in Detectron2, "value" clamps every entry and "norm" bounds the norm of *each parameter's*
    gradient; "full_norm" bounds the norm over all parameters together.
    """
    c = cfg.SOLVER.CLIP_GRADIENTS
    if not c.ENABLED:
        return None

    def clip(params: list[nn.Parameter]) -> None:
        params = [p for p in params if p.grad is not None]
        if c.CLIP_TYPE == "value":
            nn.utils.clip_grad_value_(params, c.CLIP_VALUE)
        elif c.CLIP_TYPE == "norm":
            for p in params:
                nn.utils.clip_grad_norm_(p, c.CLIP_VALUE, c.NORM_TYPE)
        else:
            nn.utils.clip_grad_norm_(params, c.CLIP_VALUE, c.NORM_TYPE)

    kinds = ("value", "norm", "full_norm")
    if c.CLIP_TYPE not in kinds:
        raise UserError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE: {c.CLIP_TYPE!r}{did_you_mean(c.CLIP_TYPE, kinds)}")
    return clip


class LRMultiplier(LRScheduler):
    """Multiplies every group's initial learning rate by a schedule of progress (iteration / max_iter).

    Its state is only `base_lrs` and `last_epoch` (the iteration), so a run may be resumed with a
    changed schedule.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, multiplier: ParamScheduler, max_iter: int,
                 last_iter: int = -1) -> None:
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
        "WarmupMultiStepLR": lambda: _multi_step(s),
        "WarmupCosineLR": lambda: CosineParamScheduler(1, s.BASE_LR_END / s.BASE_LR),
        "WarmupStepWithFixedGammaLR": lambda: StepWithFixedGammaParamScheduler(1.0, s.NUM_DECAYS, s.GAMMA, s.MAX_ITER),
    }
    if s.LR_SCHEDULER_NAME not in builders:
        hint = did_you_mean(s.LR_SCHEDULER_NAME, builders)
        raise UserError(f"SOLVER.LR_SCHEDULER_NAME: unknown schedule {s.LR_SCHEDULER_NAME!r}{hint}")
    if s.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= s.BASE_LR_END <= s.BASE_LR:
        raise UserError(f"SOLVER.BASE_LR_END: expected 0 to BASE_LR ({s.BASE_LR}), found {s.BASE_LR_END}")
    return LRMultiplier(optimizer, _with_warmup(builders[s.LR_SCHEDULER_NAME](), s), s.MAX_ITER)


def _multi_step(s: Any) -> ParamScheduler:
    steps = [x for x in s.STEPS if x <= s.MAX_ITER]
    if len(steps) < len(s.STEPS):
        beyond = [x for x in s.STEPS if x > s.MAX_ITER]
        logger.warning("SOLVER.STEPS: %s beyond MAX_ITER %d have no effect", beyond, s.MAX_ITER)
    values = [s.GAMMA**k for k in range(len(steps) + 1)]
    return MultiStepParamScheduler(values, milestones=steps, num_updates=s.MAX_ITER)


def _with_warmup(main: ParamScheduler, s: Any) -> ParamScheduler:
    """From WARMUP_FACTOR times the first value up to where the main schedule is when the warm-up ends."""
    share = min(s.WARMUP_ITERS / s.MAX_ITER, 1.0)
    if share == 0:
        return main
    if s.WARMUP_METHOD not in ("linear", "constant"):
        hint = did_you_mean(s.WARMUP_METHOD, ("linear", "constant"))
        raise UserError(f"SOLVER.WARMUP_METHOD: unknown {s.WARMUP_METHOD!r}{hint}")
    start = s.WARMUP_FACTOR * main(0.0)
    end = main(0.0) if s.RESCALE_INTERVAL else main(share)
    warmup = LinearParamScheduler(start, end) if s.WARMUP_METHOD == "linear" else ConstantParamScheduler(start)
    if share == 1:
        return warmup
    scaling = ["rescaled", "rescaled" if s.RESCALE_INTERVAL else "fixed"]
    return CompositeParamScheduler([warmup, main], lengths=[share, 1 - share], interval_scaling=scaling)
