"""Training in several processes: averaged gradients, and optimizers that divide their state among the processes."""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from .. import distributed as comm
from .options import RunOptions

__all__ = ["ShardedOptimizer", "averaging", "shard", "traffic"]

logger = logging.getLogger(__name__)


def averaging(model: nn.Module, options: RunOptions) -> nn.Module:
    """Return the model, or in several processes a module around it that averages gradients over the processes.

    DistributedDataParallel sends gradients in buckets while the backward pass goes on. They become views of its
    buckets, which saves memory for one copy of them. All steps use the same parameters, which it is told
    (`static_graph`) unless gradients are accumulated or the model is compiled, where torch does not support it. It
    then looks in each step for parameters without a gradient, such as those of a level that no head reads. Buffers
    stay separate by default.
    """
    if comm.get_world_size() == 1:
        return model
    ids = [comm.get_local_rank()] if options.device.startswith("cuda") else None
    static = options.accumulate_steps == 1 and not (options.compile or options.ddp.get("find_unused_parameters"))
    choices: dict[str, Any] = {"gradient_as_bucket_view": True, "static_graph": static} | dict(options.ddp)
    choices["find_unused_parameters"] = not static
    compress = choices.pop("fp16_compression", False)  # Detectron2's name for one of torch's hooks
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:  # torch's new name for it
        choices["forward_sync_buffers"] = choices.pop("broadcast_buffers", True)
    # The gradient of a 1x1 convolution in channels_last has other strides than its weight, with the same numbers in
    # the same order.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    parallel = DistributedDataParallel(model, device_ids=ids, **choices)
    if compress:
        parallel.register_comm_hook(None, fp16_compress_hook)
    return parallel


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """An optimizer that keeps the state of a part of the parameters in each process (ZeRO, Rajbhandari et al., 2020).

    Each process updates its part and sends it to the others. The state that is saved and loaded is that of the whole
    optimizer, so that a run continues with any number of processes, and also without this class.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, on the main process only. All processes must have called `gather_state` before."""
        return super().state_dict()

    def gather_state(self) -> None:
        """Bring the states of all processes to the main process, for `state_dict`."""
        self.consolidate_state_dict(to=0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the whole state of an optimizer of the same kind, of which each process keeps its part."""
        super().load_state_dict(state_dict | {"state": dict(state_dict["state"])})  # torch changes what it is given
        for parameter, state in self.optim.state.items():
            if isinstance(state.get("step"), torch.Tensor):  # torch moves it to the CPU, but fused kernels do not
                state["step"] = state["step"].to(parameter.device)


def shard(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer like a new one, whose state is divided among the processes if there are several."""
    if comm.get_world_size() == 1:
        return optimizer
    known = inspect.signature(type(optimizer)).parameters
    defaults = {k: v for k, v in optimizer.defaults.items() if k in known}
    return ShardedOptimizer(
        optimizer.param_groups, optimizer_class=type(optimizer), parameters_as_bucket_view=True, **defaults
    )


def traffic(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Return a line that says how much each process sends to others in a step.

    An all-reduce of n processes in a ring sends 2 (n - 1) / n of its tensor, and a broadcast of all parts (n - 1) / n.
    """
    world = comm.get_world_size()
    sizes = [p.numel() * p.element_size() for p in model.parameters() if p.requires_grad]
    mib, share = sum(sizes) / 2**20, (world - 1) / world
    sharded = isinstance(optimizer, ShardedOptimizer)
    parts = f"gradients of {mib:.1f} MiB" + (f" and updated weights of {mib:.1f} MiB" if sharded else "")
    sent = (3 if sharded else 2) * share * mib
    return f"Each of {world} processes sends about {sent:.1f} MiB per step ({parts})"
