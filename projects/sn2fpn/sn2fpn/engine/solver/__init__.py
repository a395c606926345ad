"""The optimizer, the learning-rate schedule and gradient clipping of both kinds of configuration.

The `build_*` functions read `SOLVER.*` of a YAML configuration; the other functions take plain arguments.
"""

from .functions import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    PolynomialDecayParamScheduler,
    StepParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from .optimizer import GradientClipper, build_gradient_clipper, build_optimizer, gradient_clipper, parameter_groups
from .schedule import LRMultiplier, build_lr_scheduler, build_multiplier, check_steps, multi_step, with_warmup

__all__ = [
    "CompositeParamScheduler",
    "ConstantParamScheduler",
    "CosineParamScheduler",
    "ExponentialParamScheduler",
    "GradientClipper",
    "LRMultiplier",
    "LinearParamScheduler",
    "MultiStepParamScheduler",
    "ParamScheduler",
    "PolynomialDecayParamScheduler",
    "StepParamScheduler",
    "StepWithFixedGammaParamScheduler",
    "build_gradient_clipper",
    "build_lr_scheduler",
    "build_multiplier",
    "build_optimizer",
    "check_steps",
    "gradient_clipper",
    "multi_step",
    "parameter_groups",
    "with_warmup",
]
