"""The ranges of the configuration keys that no constructor checks, such as those of the schedule and the loaders.

Keys whose values become arguments of a class, such as `MODEL.RPN.NMS_THRESH`, are checked by that class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ArgumentError, did_you_mean

__all__ = ["RANGES", "Range", "check_ranges"]


class Range(NamedTuple):
    """What a value must be.

    Attributes:
        words: what is expected, for messages.
        holds: returns whether a value of the key's type is in the range.
        choices: the valid values, if these are few.
    """

    words: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def _whole(low: int, high: int = 2**31 - 1) -> Range:
    words = f"a whole number of at least {low}" if high == 2**31 - 1 else f"a whole number from {low} to {high}"
    return Range(words, lambda v: isinstance(v, int) and low <= v <= high)


def _number(words: str, holds: Callable[[float], bool]) -> Range:
    return Range(words, lambda v: isinstance(v, int | float) and abs(v) < math.inf and holds(v))


def _one_of(*choices: str) -> Range:
    return Range("", lambda v: v in choices, choices)


def _each(item: Range, words: str, *, at_least: int = 0) -> Range:
    return Range(words, lambda values: len(values) >= at_least and all(map(item.holds, values)))


_SWITCHED_OFF_BY_0 = _whole(0)
_COUNT = _whole(1)
_ABOVE_0 = _number("a number above 0", lambda v: v > 0)
_FROM_0 = _number("a number of at least 0", lambda v: v >= 0)
_SHARE = _number("a number from 0 to 1", lambda v: 0 <= v <= 1)
_BELOW_1 = _number("a number of at least 0 and below 1", lambda v: 0 <= v < 1)
_NAMES = Range("names of data sets", lambda v: isinstance(v, str) or all(isinstance(n, str) and n.strip() for n in v))

RANGES: dict[str, Range] = {
    "SEED": Range("a whole number up to 2**32 - 1", lambda v: v < 2**32),
    "FLOAT32_PRECISION": _one_of("", "highest", "high", "medium"),
    "DATASETS.TRAIN": _NAMES,
    "DATASETS.TEST": _NAMES,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": _COUNT,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": _COUNT,
    "DATALOADER.NUM_WORKERS": _whole(0, 1024),
    "DATALOADER.REPEAT_THRESHOLD": _SHARE,
    "SOLVER.MAX_ITER": _COUNT,
    "SOLVER.BASE_LR": _ABOVE_0,
    "SOLVER.BASE_LR_END": _FROM_0,
    "SOLVER.MOMENTUM": _BELOW_1,
    "SOLVER.WEIGHT_DECAY": _FROM_0,
    "SOLVER.WEIGHT_DECAY_NORM": _FROM_0,
    "SOLVER.WEIGHT_DECAY_BIAS": Range(
        "a number of at least 0, or null", lambda v: v is None or (isinstance(v, float) and _FROM_0.holds(v))
    ),
    "SOLVER.BIAS_LR_FACTOR": _FROM_0,
    "SOLVER.GAMMA": _ABOVE_0,
    "SOLVER.STEPS": _each(_COUNT, "iterations of at least 1"),
    "SOLVER.NUM_DECAYS": _COUNT,
    "SOLVER.WARMUP_FACTOR": _SHARE,
    "SOLVER.WARMUP_ITERS": _SWITCHED_OFF_BY_0,
    "SOLVER.CHECKPOINT_PERIOD": _COUNT,
    "SOLVER.IMS_PER_BATCH": _COUNT,
    "SOLVER.REFERENCE_WORLD_SIZE": _SWITCHED_OFF_BY_0,
    "SOLVER.ACCUMULATE_STEPS": _COUNT,
    "SOLVER.CHECKPOINTS_TO_KEEP": _SWITCHED_OFF_BY_0,
    "SOLVER.AMP.DTYPE": _one_of("auto", "float16", "bfloat16"),
    "SOLVER.EMA.DECAY": _BELOW_1,
    "TEST.DETECTIONS_PER_IMAGE": _COUNT,
    "TEST.PATIENCE": _SWITCHED_OFF_BY_0,
    "TEST.AUG.MIN_SIZES": _each(_COUNT, "one or more lengths in pixels", at_least=1),
    "TEST.AUG.MAX_SIZE": _COUNT,
    "TEST.PRECISE_BN.NUM_ITER": _COUNT,
}
"""The range of each key. Types are not its matter: the reader of a configuration has checked them."""


def check_ranges(config: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Check the values of a configuration against `RANGES`.

    Args:
        config: a tree of mappings; keys that it does not have are passed over.
        names: the configuration's own names of keys in `RANGES`, for a configuration with another layout; other keys
            are not checked.

    Raises:
        ArgumentError: a value is out of its range; the error names its key.
    """
    for key, allowed in RANGES.items():
        name = key if names is None else names.get(key, "")
        value: Any = config
        for part in name.split("."):
            value = value.get(part, ...) if isinstance(value, Mapping) else ...
        if value is ... or (value is None and names is not None):  # an argument's default, e.g. of an optimizer
            continue
        if not allowed.holds(value):
            near = f"unknown value {value!r}{did_you_mean(str(value), allowed.choices)}"
            raise ArgumentError(name, near if allowed.choices else f"expected {allowed.words}, found {value!r}")
