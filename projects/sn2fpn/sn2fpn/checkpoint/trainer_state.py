"""The state of the trainer in a checkpoint file: optimizer, learning-rate schedule and gradient scaler.

Files hold them where Detectron2's trainer looks for them, so that either engine resumes from the other's files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["check_optimizer", "from_detectron2", "parameter_names", "reordered", "to_detectron2"]

_OF_OPTIMIZER = ("optimizer", "parameter_names", "grad_scaler")
_PER_ELEMENT = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
"""States that have the shape of their parameter. Others may have shapes of their own, such as those of Adafactor."""


def to_detectron2(states: dict[str, Any], iteration: int) -> dict[str, Any]:
    """Return `states` with those that Detectron2's trainer knows moved to where it looks for them."""
    inner = {"iteration": iteration} | {k: states[k] for k in _OF_OPTIMIZER if k in states}
    trainer: dict[str, Any] = {"iteration": iteration, "_trainer": inner}
    if "scheduler" in states:
        trainer["hooks"] = {"LRScheduler": states["scheduler"]}
    others = {k: v for k, v in states.items() if k not in (*_OF_OPTIMIZER, "scheduler")}
    return {"trainer": trainer} | others


def from_detectron2(states: dict[str, Any]) -> dict[str, Any]:
    """Return `states` with those of Detectron2's trainer moved to the top; the inverse of `to_detectron2`."""
    trainer = states["trainer"]
    inner, hooks = trainer.get("_trainer", trainer), trainer.get("hooks")
    found = {name: inner.get(name) for name in _OF_OPTIMIZER if isinstance(inner, dict)} | {
        "scheduler": hooks.get("LRScheduler") if isinstance(hooks, dict) else None,
        "iteration": trainer.get("iteration"),
    }
    others = {k: v for k, v in states.items() if k != "trainer"}
    return {k: v for k, v in found.items() if v is not None} | others


def parameter_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[list[str]]:
    """Return the name of each parameter of each group; those that are not the model's are known by their position."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names.get(p, f"[{i}]") for i, p in enumerate(group["params"])] for group in optimizer.param_groups]


def reordered(
    state: dict[str, Any], mine: list[list[str]], theirs: list[list[str]] | None, names_in_file: list[str]
) -> dict[str, Any]:
    """Return an optimizer's state with the entries of each group in the order of the optimizer that will load it.

    An optimizer's state refers to parameters by position, and two programs may list the same parameters in different
    orders. A group of another size stays as it is.

    Args:
        state: the state from a file.
        mine: the `parameter_names` of the optimizer that will load the state.
        theirs: the `parameter_names` that the file holds. None stands for groups in the order of `names_in_file`, which
            are those of Detectron2.
        names_in_file: the names of the model's tensors in the order of the file.
    """
    if theirs is None:
        rank = {name: i for i, name in enumerate(names_in_file)}
        theirs = [sorted(names, key=lambda name: rank.get(name, len(rank))) for names in mine]
    groups = list(state["param_groups"])
    for i, (group, my_names, their_names) in enumerate(zip(groups, mine, theirs)):
        entries = dict(zip(their_names, group["params"]))
        if len(group["params"]) == len(my_names):
            groups[i] = group | {"params": [entries[name] for name in my_names if name in entries]}
    return state | {"param_groups": groups}


def check_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Raise ValueError if an optimizer's state belongs to parameters of other shapes."""
    mine, theirs = optimizer.param_groups, state["param_groups"]
    sizes = [len(g["params"]) for g in mine], [len(g["params"]) for g in theirs]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the parameter groups have {sizes[1]} tensors in the file and {sizes[0]} here")
    ids = [i for group in theirs for i in group["params"]]
    params = [p for group in mine for p in group["params"]]
    for i, param in zip(ids, params):
        for name, value in state["state"].get(i, {}).items():
            if name in _PER_ELEMENT and isinstance(value, Tensor) and value.shape != param.shape:
                raise ValueError(f"{name} has the shape {tuple(value.shape)}, its parameter {tuple(param.shape)}")
