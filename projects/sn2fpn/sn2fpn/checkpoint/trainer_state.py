"""The state of the trainer in a checkpoint file: optimizer, learning-rate schedule and gradient scaler.

Files hold them where Detectron2's trainer looks for them, so that either engine resumes from the other's files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["check_optimizer", "from_detectron2", "reordered", "to_detectron2"]


def to_detectron2(states: dict[str, Any], iteration: int) -> dict[str, Any]:
    """Return `states` with those that Detectron2's trainer knows moved to where it looks for them."""
    inner = {"iteration": iteration} | {k: states[k] for k in ("optimizer", "grad_scaler") if k in states}
    trainer: dict[str, Any] = {"iteration": iteration, "_trainer": inner}
    if "scheduler" in states:
        trainer["hooks"] = {"LRScheduler": states["scheduler"]}
    others = {k: v for k, v in states.items() if k not in ("optimizer", "grad_scaler", "scheduler")}
    return {"trainer": trainer} | others


def from_detectron2(states: dict[str, Any]) -> dict[str, Any]:
    """Return `states` with those of Detectron2's trainer moved to the top; the inverse of `to_detectron2`."""
    trainer = states["trainer"]
    inner = trainer.get("_trainer", trainer)
    found = {
        "optimizer": inner.get("optimizer"),
        "grad_scaler": inner.get("grad_scaler"),
        "scheduler": trainer.get("hooks", {}).get("LRScheduler"),
        "iteration": trainer.get("iteration"),
    }
    others = {k: v for k, v in states.items() if k != "trainer"}
    return {k: v for k, v in found.items() if v is not None} | others


def reordered(
    state: dict[str, Any], optimizer: torch.optim.Optimizer, model: nn.Module, names_in_file: list[str]
) -> dict[str, Any]:
    """Return an optimizer's state with the entries of each group in the order of `optimizer`.

    An optimizer's state refers to parameters by position, and two programs may list the same parameters in different
    orders.

    Args:
        state: the state from a file, in which each group follows the order of `names_in_file`.
        optimizer: the optimizer that will load the state.
        model: the model whose parameters are optimized.
        names_in_file: the names of the model's tensors in the order of the file.
    """
    rank = {name: i for i, name in enumerate(names_in_file)}
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = []
    for mine, theirs in zip(optimizer.param_groups, state["param_groups"]):
        my_names = [names[parameter] for parameter in mine["params"]]
        as_in_file = sorted(my_names, key=lambda name: rank.get(name, len(rank)))
        entry = dict(zip(as_in_file, theirs["params"]))
        groups.append(theirs | {"params": [entry[name] for name in my_names if name in entry]})
    groups += state["param_groups"][len(groups) :]
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
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape != param.shape:
                raise ValueError(f"{name} has the shape {tuple(value.shape)}, its parameter {tuple(param.shape)}")
