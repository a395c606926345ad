"""The ranges of the configuration keys that no constructor checks, such as those of the schedule and the loaders.

Keys whose values become arguments of a class, such as `MODEL.RPN.NMS_THRESH`, are checked by that class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import ArgumentError, check_choice
from ..ranges import check_count, check_each, check_limit, check_number

__all__ = ["RANGES", "check_ranges"]


def _check_names(key: str, found: Any) -> None:
    """Check names of data sets; a Python configuration may hold a single one."""
    if not isinstance(found, str) and not all(isinstance(name, str) and name.strip() for name in found):
        raise ArgumentError(key, f"expected names of data sets, found {found!r}")


def _check_lengths(key: str, found: Any) -> None:
    if not check_each(key, found, check_count):
        raise ArgumentError(key, f"expected one or more lengths in pixels, found {found!r}")


def _check_number_or_null(key: str, found: Any) -> None:
    if found is not None:
        _from_0(key, found)


def _check_version(key: str, found: Any) -> None:
    if found != 2:
        raise ArgumentError(key, f"expected 2, found {found!r}; convert older files with Detectron2")


_from_0 = partial(check_number, at_least=0)
_below_1 = partial(check_number, at_least=0, below=1)
_share = partial(check_number, at_least=0, at_most=1)
_above_0 = partial(check_number, above=0)
_count_or_0 = partial(check_count, at_least=0)

RANGES: dict[str, Callable[[str, Any], Any]] = {
    "VERSION": _check_version,
    "SEED": partial(check_number, below=2**32),
    "FLOAT32_PRECISION": partial(check_choice, choices=("", "highest", "high", "medium")),
    "DATASETS.TRAIN": _check_names,
    "DATASETS.TEST": _check_names,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": check_count,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": check_count,
    "DATALOADER.NUM_WORKERS": partial(check_number, at_least=0, at_most=1024),
    "DATALOADER.REPEAT_THRESHOLD": _share,
    "SOLVER.MAX_ITER": partial(check_count, at_most=10**12),
    "SOLVER.BASE_LR": _above_0,
    "SOLVER.BASE_LR_END": _from_0,
    "SOLVER.OPTIMIZER": partial(check_choice, choices=("SGD", "AdamW")),
    "SOLVER.MOMENTUM": _below_1,
    "SOLVER.WEIGHT_DECAY": _from_0,
    "SOLVER.WEIGHT_DECAY_NORM": _check_number_or_null,
    "SOLVER.WEIGHT_DECAY_BIAS": _check_number_or_null,
    "SOLVER.BIAS_LR_FACTOR": _from_0,
    "SOLVER.GAMMA": _above_0,
    "SOLVER.STEPS": partial(check_each, check=check_count),
    "SOLVER.NUM_DECAYS": check_count,
    "SOLVER.WARMUP_FACTOR": _share,
    "SOLVER.WARMUP_ITERS": _count_or_0,
    "SOLVER.CHECKPOINT_PERIOD": check_count,
    "SOLVER.IMS_PER_BATCH": check_count,
    "SOLVER.REFERENCE_WORLD_SIZE": _count_or_0,
    "SOLVER.ACCUMULATE_STEPS": check_count,
    "SOLVER.CHECKPOINTS_TO_KEEP": _count_or_0,
    "SOLVER.AMP.DTYPE": partial(check_choice, choices=("auto", "float16", "bfloat16")),
    "SOLVER.EMA.DECAY": _below_1,
    "TEST.DETECTIONS_PER_IMAGE": check_limit,
    "TEST.PATIENCE": _count_or_0,
    "TEST.AUG.MIN_SIZES": _check_lengths,
    "TEST.AUG.MAX_SIZE": check_count,
    "TEST.PRECISE_BN.NUM_ITER": check_count,
}
"""For each key, the function `check(key, found)` that refuses a value out of its range."""


def check_ranges(config: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Check the values of a configuration against `RANGES`.

    Args:
        config: a tree of mappings; keys that it does not have are passed over.
        names: the configuration's own names of keys in `RANGES`, for a configuration with another layout; other keys
            are not checked.

    Raises:
        ArgumentError: a value is out of its range; the error names its key.
    """
    for key, check in RANGES.items():
        name = key if names is None else names.get(key, "")
        value: Any = config
        for part in name.split("."):
            value = value.get(part, ...) if isinstance(value, Mapping) else ...
        if value is ... or (value is None and names is not None):  # an argument's default, e.g. of an optimizer
            continue
        check(name, value)
