"""Thin helpers over torch.distributed.

Without an initialised process group every helper answers as the only process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _NormBase

from .errors import UserError

__all__ = [
    "get_rank",
    "get_local_rank",
    "get_world_size",
    "is_launched",
    "is_main_process",
    "barrier",
    "all_gather",
    "gather",
    "broadcast_object",
    "call_on_main",
    "largest",
    "reduce_mean",
    "average_statistics",
]

T = TypeVar("T")
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """Return the global rank of this process."""
    return dist.get_rank() if _active() else 0


def get_local_rank() -> int:
    """Return the rank of this process on its machine, which the launcher sets (`LOCAL_RANK`)."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _active() else 0


def get_world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _active() else 1


def is_launched() -> bool:
    """Return whether a launcher such as torchrun has started this process, which sets RANK, WORLD_SIZE and LOCAL_RANK.

    WORLD_SIZE without RANK has another meaning, for instance in scripts for Slurm.

    Raises:
        UserError: RANK is set, but not the others.
    """
    missing = [name for name in _LAUNCHED if name not in os.environ]
    if missing and "RANK" in os.environ:
        raise UserError(
            f"the environment variable RANK is set, but {' and '.join(missing)} not; start the program by torchrun, "
            f"which sets {', '.join(_LAUNCHED)}, or unset RANK"
        )
    return not missing


def is_main_process() -> bool:
    """Return whether the global rank of this process is 0."""
    return get_rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if get_world_size() > 1:
        dist.barrier()


_GLOO: Any = None


def _object_group() -> Any:
    """Return the group over which objects are sent. It uses gloo, also when the default backend is NCCL."""
    global _GLOO
    if dist.get_backend() != "nccl":
        return dist.group.WORLD
    if _GLOO is None:
        _GLOO = dist.new_group(backend="gloo")
    return _GLOO


def all_gather(obj: Any) -> list[Any]:
    """Return the `obj` of every process, in the order of ranks, on every process."""
    if get_world_size() == 1:
        return [obj]
    out: list[Any] = [None] * get_world_size()
    dist.all_gather_object(out, obj, group=_object_group())
    return out


def gather(obj: Any, dst: int = 0) -> list[Any]:
    """Return the `obj` of every process, in the order of ranks, on process `dst` and an empty list elsewhere."""
    if get_world_size() == 1:
        return [obj]
    out: list[Any] | None = [None] * get_world_size() if get_rank() == dst else None
    dist.gather_object(obj, out, dst=dst, group=_object_group())
    return out or []


def broadcast_object(obj: Any, src: int = 0) -> Any:
    """Return the `obj` of process `src` on every process."""
    if get_world_size() == 1:
        return obj
    box = [obj if get_rank() == src else None]
    dist.broadcast_object_list(box, src=src, group=_object_group())
    return box[0]


def call_on_main(function: Callable[[], T]) -> T:
    """Call a function on the main process only, and return its result, or raise its error, on every process."""
    result: Any = None
    error: Exception | None = None
    if is_main_process():
        try:
            result = function()
        except Exception as e:
            error = e
    result, error = broadcast_object((result, error))
    if error is not None:
        raise error
    return result


def largest(number: int) -> int:
    """Return the largest `number` of all processes on every process. No process waits for its GPU."""
    if get_world_size() == 1:
        return number
    box = torch.tensor(number)
    dist.all_reduce(box, dist.ReduceOp.MAX, group=_object_group())
    return int(box)


def reduce_mean(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean over all processes of each tensor. All processes must give the same names and one shape."""
    world = get_world_size()
    if world == 1:
        return values
    names = sorted(values)
    stacked = torch.stack([values[k].detach().float() for k in names])
    dist.all_reduce(stacked)
    return dict(zip(names, stacked / world))


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Replace the running statistics of a model's norms by their mean over all processes.

    Norms in training use the statistics of the batch, so that this changes no loss and no gradient. The statistics of
    frozen norms and of synchronised ones are equal already. Running statistics are linear in those of the batches:
    averaging after every step and averaging once give the same values.
    """
    if get_world_size() == 1:
        return
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and not isinstance(m, SyncBatchNorm) and m.training]
    tensors = [t for m in norms for t in (m.running_mean, m.running_var) if t is not None]
    if not tensors:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    parts = (flat / get_world_size()).split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors)])
