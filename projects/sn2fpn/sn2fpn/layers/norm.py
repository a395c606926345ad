"""Norm layers by name, frozen batch norm and synchronised batch norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ArgumentError, check_choice
from .cpu import channels_last_norm
from .cpu.sync_batch_norm import sync_batch_norm

__all__ = ["BatchNorm2d", "FrozenBatchNorm2d", "GroupNorm", "Norm", "SyncBatchNorm", "get_norm"]

Norm = str | Callable[[int], nn.Module] | None
"""How callers ask for a norm: a name of `get_norm`, a callable that makes the module from the number of channels, or ""
or None for none."""


class FrozenBatchNorm2d(nn.Module):
    """A batch norm with constant statistics and affine parameters: y = x * scale + shift per channel.

    scale = weight / sqrt(running_var + eps) and shift = bias - running_mean * scale. All four vectors are buffers, so
    neither an optimizer nor the training mode changes them. A fresh layer is the identity up to rounding. It is meant
    to be loaded from a checkpoint: a deep network with fresh frozen norms diverges in training.

    State dicts of `nn.BatchNorm2d` load as well. A layer that was made from a batch norm by `convert_frozen_batchnorm`
    keeps its `num_batches_tracked` in the state dict, as in Detectron2, but does not need it; other layers drop it.

    Args:
        num_features: number of channels C.
        eps: value added to the variance.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import FrozenBatchNorm2d
        >>> FrozenBatchNorm2d(8)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)
        self.register_buffer("num_batches_tracked", None)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift (Tensor[C] each) of y = x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, with the shape (Tensor[N, C, H, W]) and dtype of `x`."""
        scale, shift = self.scale_and_shift()
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        counter = prefix + "num_batches_tracked"
        if self.num_batches_tracked is None:
            state_dict.pop(counter, None)
        else:
            state_dict.setdefault(counter, self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every batch norm in `module` by a frozen one with the same values, and return the module.

        Containers are changed in place. If `module` is a batch norm itself, the result is a new module.
        """
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = cls(module.num_features, module.eps)
            for name, buffer in frozen.named_buffers():
                value = getattr(module, name)
                if value is not None:  # None with affine=False or track_running_stats=False; the default stays
                    buffer.copy_(value.detach())
            if module.num_batches_tracked is not None:
                frozen.num_batches_tracked = module.num_batches_tracked.clone()
            device = next((t.device for t in module.state_dict().values()), None)
            return frozen.to(device) if device is not None else frozen
        for name, child in module.named_children():
            new = cls.convert_frozen_batchnorm(child)
            if new is not child:
                setattr(module, name, new)
        return module


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's batch norm, with exact statistics in training where PyTorch's are not.

    For channels-last maps on a CPU it takes `sn2fpn.layers.cpu.channels_last_norm`, whose gradients cannot be
    differentiated again; elsewhere nothing differs.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import BatchNorm2d
        >>> BatchNorm2d(8)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, with the shape (Tensor[N, C, H, W]) and dtype of `x`."""
        exact = self.training and self.affine and channels_last_norm.suits(x)
        return channels_last_norm.batch_norm(x, self) if exact else super().forward(x)


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm, with exact statistics where PyTorch's are not.

    For channels-last maps on a CPU it takes `sn2fpn.layers.cpu.channels_last_norm`, whose gradients cannot be
    differentiated again; elsewhere nothing differs.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import GroupNorm
        >>> GroupNorm(4, 8)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, with the shape (Tensor[N, C, H, W]) and dtype of `x`."""
        exact = self.affine and channels_last_norm.suits(x)
        return channels_last_norm.group_norm(x, self) if exact else super().forward(x)


class SyncBatchNorm(nn.SyncBatchNorm):
    """A batch norm with statistics over all processes. Unlike PyTorch's class it also runs on CPUs, with gloo.

    Mean and variance are those of all pixels of all processes, whatever the sizes of their batches are. In a single
    process this is a plain batch norm, with the statistics of `BatchNorm2d`.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import SyncBatchNorm
        >>> SyncBatchNorm(8)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, with the shape (Tensor[N, C, H, W]) and dtype of `x`."""
        if not (self.training and self.affine and x.is_cpu):
            return super().forward(x)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return sync_batch_norm(x, self)
        if channels_last_norm.suits(x):
            return channels_last_norm.batch_norm(x, self)
        return nn.BatchNorm2d.forward(self, x)  # PyTorch's class refuses CPUs also in a process group of one


def _group_norm(channels: int, eps: float, momentum: float) -> nn.Module:
    if channels % 32:
        raise ArgumentError("norm", f"'GN' makes 32 groups, so channels must be divisible by 32, found {channels}")
    return GroupNorm(32, channels, eps=eps)


_NORMS: dict[str, Callable[[int, float, float], nn.Module]] = {
    "BN": lambda channels, eps, momentum: BatchNorm2d(channels, eps, momentum),
    "SyncBN": lambda channels, eps, momentum: SyncBatchNorm(channels, eps, momentum),
    "FrozenBN": lambda channels, eps, momentum: FrozenBatchNorm2d(channels, eps),
    "GN": _group_norm,
}


def get_norm(norm: Norm, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module | None:
    """Return a new norm layer for maps of `channels` channels, or None for no norm.

    Args:
        norm: "BN", "SyncBN", "FrozenBN", "GN" (group norm with 32 groups), "" or None for no norm, or a callable that
            makes the module from the number of channels, e.g. `functools.partial(nn.BatchNorm2d, eps=1e-3)`.
        channels: number of channels of the maps.
        eps: value added to the variance.
        momentum: share of the newest batch in the running statistics of "BN" and "SyncBN".

    Raises:
        ArgumentError: the name is unknown, it is neither a name nor a callable, or 32 does not divide the channels of
            "GN".
    """
    if not norm:
        return None
    if callable(norm):
        return norm(channels)
    if not isinstance(norm, str):
        raise ArgumentError("norm", f"expected a name such as 'BN', or a callable that makes the norm, found {norm!r}")
    return _NORMS[check_choice("norm", norm, [*_NORMS, ""])](channels, eps, momentum)
