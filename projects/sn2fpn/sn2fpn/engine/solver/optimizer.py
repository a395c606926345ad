"""The optimizer and the clipping of gradients, with Detectron2's rules."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ...errors import ArgumentError, UserError, argument_names, check_choice, keys_of

__all__ = [
    "GradientClipper",
    "build_gradient_clipper",
    "build_optimizer",
    "gradient_clipper",
    "gradient_scaler",
    "main_group",
    "parameter_groups",
]

GradientClipper = Callable[[list[nn.Parameter]], None]

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Return SOLVER.OPTIMIZER over the trainable parameters, in one group per pair of learning rate and weight decay.

    "SGD" is stochastic gradient descent with SOLVER.MOMENTUM and SOLVER.NESTEROV. "AdamW" (Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", 2019) has its usual betas of 0.9 and 0.999 instead of these two.

    Affine parameters of norms have SOLVER.WEIGHT_DECAY_NORM. Parameters that are named `bias`, also those of norms,
    have their learning rate multiplied by SOLVER.BIAS_LR_FACTOR and have SOLVER.WEIGHT_DECAY_BIAS unless it is None.

    Raises:
        UserError: the model has no trainable parameter, SOLVER.NESTEROV lacks a momentum, or the optimizer is unknown.
    """
    s = cfg.SOLVER
    check_choice("SOLVER.OPTIMIZER", s.OPTIMIZER, ("SGD", "AdamW"))
    if s.NESTEROV and not s.MOMENTUM:
        raise ArgumentError("SOLVER.NESTEROV", "expected SOLVER.MOMENTUM above 0 with it, found 0")
    params = parameter_groups(
        model,
        base_lr=s.BASE_LR,
        weight_decay=s.WEIGHT_DECAY,
        weight_decay_norm=s.WEIGHT_DECAY_NORM,
        weight_decay_bias=s.WEIGHT_DECAY_BIAS,
        bias_lr_factor=s.BIAS_LR_FACTOR,
    )
    if s.OPTIMIZER == "AdamW":
        return torch.optim.AdamW(params, lr=s.BASE_LR, weight_decay=s.WEIGHT_DECAY, fused=True)
    return torch.optim.SGD(
        params, lr=s.BASE_LR, momentum=s.MOMENTUM, nesterov=s.NESTEROV, weight_decay=s.WEIGHT_DECAY, fused=True
    )


def gradient_scaler(
    optimizer: torch.optim.Optimizer, device: str, precision: torch.dtype | None
) -> torch.amp.GradScaler:
    """Return the scaler of the small gradients of float16, which does nothing in other precisions.

    It leaves out the steps whose scaled gradients overflow, among them usually the first ones, while the schedule of
    the learning rate goes on. For this it changes the optimizer and silences torch's warning about the schedule.

    Args:
        optimizer: the optimizer that makes the steps.
        device: the type of the model's device, such as "cuda".
        precision: `torch.float16`, another precision, or None for single precision.
    """
    enabled = precision == torch.float16
    if enabled:
        # The scaler would hand such steps to the fused kernels, of which that of SGD keeps the weights but spoils the
        # momentum. With this attribute it leaves them out itself.
        optimizer._step_supports_amp_scaling = False
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
    return torch.amp.GradScaler(device, enabled=enabled)


def parameter_groups(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    weight_decay_norm: float | None = 0.0,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Return the parameter groups for an optimizer, one per pair of learning rate and weight decay.

    Args:
        model: the model; only its trainable parameters take part.
        base_lr: learning rate of all parameters except biases.
        weight_decay: weight decay of all parameters except those below.
        weight_decay_norm: weight decay of the affine parameters of norms; None treats them like the others.
        weight_decay_bias: weight decay of parameters named `bias`; None treats them like the others.
        bias_lr_factor: factor on the learning rate of parameters named `bias`.

    Raises:
        UserError: the model has no trainable parameter.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if not p.requires_grad or p in seen:
                continue
            seen.add(p)
            lr, decay = base_lr, weight_decay
            if isinstance(module, _NORMS) and weight_decay_norm is not None:
                decay = weight_decay_norm
            if name == "bias":
                lr *= bias_lr_factor
                decay = decay if weight_decay_bias is None else weight_decay_bias
            groups[lr, decay].append(p)
    if not groups:
        raise UserError("the model has no trainable parameter; lower freeze_at of its trunk (MODEL.BACKBONE.FREEZE_AT)")
    return [{"params": ps, "lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()]


def build_gradient_clipper(cfg: Any) -> GradientClipper | None:
    """Return the gradient clipping of SOLVER.CLIP_GRADIENTS, or None when it is off."""
    c = cfg.SOLVER.CLIP_GRADIENTS
    with argument_names(keys_of("SOLVER.CLIP_GRADIENTS")):
        return gradient_clipper(c.CLIP_TYPE, c.CLIP_VALUE, c.NORM_TYPE) if c.ENABLED else None


def gradient_clipper(clip_type: str, clip_value: float, norm_type: float = 2.0) -> GradientClipper:
    """Return a function that clips the gradients of parameters in place.

    Args:
        clip_type: "value" clamps every entry, "norm" bounds the norm of each parameter's gradient, both as in
            Detectron2; "full_norm" bounds the norm over all parameters together.
        clip_value: the largest absolute value or norm, above 0.
        norm_type: the p of the p-norm, above 0; infinity is allowed.

    Raises:
        ArgumentError: unknown `clip_type`, or a number that is not above 0.
    """
    check_choice("clip_type", clip_type, ("value", "norm", "full_norm"))
    for name, value in (("clip_value", clip_value), ("norm_type", norm_type)):
        if not value > 0:
            raise ArgumentError(name, f"expected a number above 0, found {value}")

    def clip(params: list[nn.Parameter]) -> None:
        params = [p for p in params if p.grad is not None]
        if clip_type == "value":
            nn.utils.clip_grad_value_(params, clip_value)
        elif clip_type == "full_norm":
            nn.utils.clip_grad_norm_(params, clip_value, norm_type)
        elif params:
            _clip_each_norm([p.grad for p in params], clip_value, norm_type)

    return clip


@torch.no_grad()
def _clip_each_norm(gradients: list[torch.Tensor], largest: float, norm_type: float) -> None:
    """Do what `torch.nn.utils.clip_grad_norm_` does for each gradient alone, with fewer kernels."""
    norms = torch.stack(torch._foreach_norm(gradients, norm_type))
    torch._foreach_mul_(gradients, list((largest / (norms + 1e-6)).clamp(max=1.0).unbind()))


def main_group(optimizer: torch.optim.Optimizer) -> int:
    """Return the position of the parameter group whose learning rate the metrics show, which is Detectron2's choice.

    It is the first one with the most parameters or, if each group has a single parameter, with the most common rate.
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if max(sizes) > 1:
        return sizes.index(max(sizes))
    rates = [group["lr"] for group in optimizer.param_groups]
    return rates.index(Counter(rates).most_common(1)[0][0])
