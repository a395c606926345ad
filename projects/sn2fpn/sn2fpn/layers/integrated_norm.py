"""Integrated batch norm (iBN): one norm for all levels of a pyramid, with joint statistics.

In training, mean and variance of a channel are those of all pixels of all levels of the batch, so large maps dominate.
Wang et al., "Scale-Equalizing Pyramid Convolution for Object Detection", CVPR 2020 (arXiv 2005.03101).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["integrated_norm_relu"]


def integrated_norm_relu(maps: Sequence[Tensor], norm: nn.Module | None) -> list[Tensor]:
    """Return relu(norm(x)) of each map, where a batch norm in training sees the pixels of all maps as one map.

    The running statistics are updated once, by the joint statistics. In a distributed run each process has statistics
    of its own, unless `norm` is synchronised. In evaluation a batch norm is a fixed affine map per channel, and each
    map is normalised by itself.

    Args:
        maps (Tensor[N, C, H_l, W_l] per level): maps that nothing else reads, because they may be overwritten.
        norm: a batch norm of C channels, synchronised or not, or None for ReLU only.

    Returns:
        A tensor of the same shape and memory layout for each map.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import integrated_norm_relu
        >>> maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)]
        >>> [tuple(x.shape) for x in integrated_norm_relu(maps, torch.nn.BatchNorm2d(8))]
        [(2, 8, 16, 16), (2, 8, 8, 8)]
    """
    if norm is None:
        return [F.relu_(x) for x in maps]
    if not (norm.training and isinstance(norm, nn.modules.batchnorm._BatchNorm)):
        return [F.relu_(norm(x)) for x in maps]
    channels_last = all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    columns = [_to_column(x, channels_last) for x in maps]
    joint = F.relu_(norm(torch.cat(columns, dim=2)))
    parts = joint.split([column.shape[2] for column in columns], dim=2)
    return [_from_column(part, x, channels_last) for part, x in zip(parts, maps)]


# In channels-last layout, the pixels of all images make one column of a map of width 1, and each stretch of the joint
# column is a channels-last map again, so only `torch.cat` copies. In contiguous layout there is a column per image, and
# each part is copied back.


def _to_column(x: Tensor, channels_last: bool) -> Tensor:
    """Return the pixels of the map as one column (Tensor[1 or N, C, pixels, 1])."""
    if channels_last:
        return x.permute(0, 2, 3, 1).reshape(1, -1, 1, x.shape[1]).permute(0, 3, 1, 2)
    return x.flatten(2).unsqueeze(3)


def _from_column(column: Tensor, like: Tensor, channels_last: bool) -> Tensor:
    """Return the column as a map with the shape of `like`."""
    if channels_last:
        return column.permute(0, 2, 3, 1).reshape(like.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
    return column.reshape(like.shape).contiguous()
