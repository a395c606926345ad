"""Batch norm in training and group norm of channels-last maps, with statistics in two passes.

The norms of `sn2fpn.layers.norm` take this kernel for float32 maps on a CPU whose channels are innermost in memory.
PyTorch's kernels for such maps add all pixels one after the other in one number, and its group norm subtracts the
square of the mean from the mean of the squares. For maps of 120 x 160 pixels the results are wrong by 1e-5 of their
deviation, and by 7e-3 if the mean is 17 deviations. Here PyTorch's sums, which add in a tree, give the mean first and
then the mean square of the deviations from it. The errors are those of contiguous maps, and so is the time or less.

Tracing and compilation keep PyTorch's operators, which tools know and which a compiler replaces by kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recording import needs_plain_operators

__all__ = ["batch_norm", "group_norm", "suits", "update_running_statistics"]


def suits(x: Tensor) -> bool:
    """Return whether this kernel should normalise the map (Tensor[N, C, H, W])."""
    innermost = x.dim() == 4 and x.stride(1) == 1 and not x.is_contiguous()
    return innermost and x.is_cpu and x.dtype == torch.float32 and x.numel() > 0 and not needs_plain_operators()


def batch_norm(x: Tensor, norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
    """Return the map (Tensor[N, C, H, W]) normalised by its own statistics, and update the running ones of `norm`."""
    y, mean, var = _Normalise.apply(x, norm.weight, norm.bias, 0, norm.eps)
    update_running_statistics(norm, mean[0], var[0], x.numel() // x.shape[1])
    return y


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return the map (Tensor[N, C, H, W]) with each group of channels of each image normalised."""
    return _Normalise.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)[0]


@torch.no_grad()
def update_running_statistics(
    norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, pixels: int | Tensor
) -> None:
    """Move the running statistics of `norm` towards those of a batch, as PyTorch's batch norm does.

    Args:
        norm: the batch norm.
        mean, var (Tensor[C]): mean and biased variance of the batch.
        pixels: number of values of each channel in the batch.
    """
    if norm.running_mean is None:
        return
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(var * (pixels / (pixels - 1)), rate)


class _Normalise(torch.autograd.Function):
    """y = (x - mean) * (var + eps) ** -0.5 * weight + bias, and its mean and variance (Tensor[1 or N, C] each).

    With `groups` 0 a channel of the whole batch has one mean and one variance; otherwise a group of channels of an
    image has. The result is differentiable once with respect to x, weight and bias.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):  # type: ignore[no-untyped-def]
        mean = _shared(x.mean((2, 3)), groups)
        var = _shared(_pixel_means(_squared_distance, mean, x), groups)
        scale = (var + eps).rsqrt()
        ctx.groups = groups
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, var)
        factor = scale * weight
        return torch.addcmul(_map(bias - mean * factor), x, _map(factor)), mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        x, weight, mean, scale = ctx.saved_tensors
        average = grad.mean((2, 3))
        product = _pixel_means(lambda m, x, grad: (x - m).mul_(grad), mean, x, grad) * scale
        # The gradient of the normalised map, less its mean and its component along the normalised map.
        along = -scale.square() * _shared(product * weight, ctx.groups)
        constant = -scale * _shared(average * weight, ctx.groups) - mean * along
        grad_x = torch.addcmul(_map(constant), grad, _map(scale * weight)).addcmul_(x, _map(along))
        pixels = grad.shape[2] * grad.shape[3]
        return grad_x, pixels * product.sum(0), pixels * average.sum(0), None, None


def _shared(values: Tensor, groups: int) -> Tensor:
    """Average the values of each channel of each image (Tensor[N, C]) over all that share statistics.

    Returns:
        Tensor[1, C] for batch norm and Tensor[N, C] for group norm.
    """
    if not groups:
        return values.mean(0, keepdim=True)
    grouped = values.unflatten(1, (groups, -1))
    return grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)


def _pixel_means(function: Callable[..., Tensor], values: Tensor, *maps: Tensor) -> Tensor:
    """Return the mean over the pixels of `function(values, *maps)` (Tensor[N, C]).

    One image after the other is computed, so that the memory for the function's results is that of one image.

    Args:
        function: maps values (Tensor[C, 1, 1]) and maps of one image (Tensor[C, H, W]) to a new map of that shape.
        values (Tensor[1 or N, C]): values of each channel.
        maps (Tensor[N, C, H, W] each): the maps.
    """
    images = zip(_map(values).expand(len(maps[0]), -1, 1, 1), *maps)
    return torch.stack([function(*image).mean((1, 2)) for image in images])


def _squared_distance(value: Tensor, x: Tensor) -> Tensor:
    """Return (x - value) ** 2 in one pass over memory."""
    return F.mse_loss(x, value.expand_as(x), reduction="none")


def _map(values: Tensor) -> Tensor:
    """Return values of channels (Tensor[C] or Tensor[N, C]) as maps of one pixel."""
    return values[..., None, None]
