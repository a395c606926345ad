"""Batch norm in training with statistics over all processes, by two sums over the processes.

`SyncBatchNorm` takes this kernel on a CPU, where PyTorch's synchronised batch norm does not run.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .channels_last_norm import update_running_statistics

__all__ = ["sync_batch_norm"]


def sync_batch_norm(x: Tensor, norm: nn.SyncBatchNorm) -> Tensor:
    """Return the normalised map (Tensor[N, C, H, W]) and update the running statistics of `norm`.

    Mean and variance are those of all pixels of all processes, whatever the sizes of their batches are. If no process
    has a pixel, the running statistics stay.
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    pixels = values.new_tensor([x.numel() / x.shape[1]])
    total, n = _SumOverProcesses.apply(torch.cat([values.sum((0, 2, 3)), pixels])).split([x.shape[1], 1])
    mean = total / n.clamp(min=1)
    deviation = values - mean.view(1, -1, 1, 1)
    var = _SumOverProcesses.apply(deviation.square().sum((0, 2, 3))) / n.clamp(min=1)
    if n > 0:
        update_running_statistics(norm, mean, var, n)
    scale = norm.weight * (var + norm.eps).rsqrt()
    return (deviation * scale.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes. Each output depends on every process's input, so gradients are summed as well."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = grad.clone()
        dist.all_reduce(total)
        return total
