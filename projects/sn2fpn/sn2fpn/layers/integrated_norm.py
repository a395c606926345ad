"""Integrated batch norm (iBN): one norm for all levels of a pyramid, with joint statistics.

Wang et al., "Scale-Equalizing Pyramid Convolution for Object Detection", CVPR 2020 (arXiv 2005.03101): in training,
mean and variance of a channel are over the batch and all pixels of all levels together, so large maps dominate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["integrated_norm_relu"]


def integrated_norm_relu(maps: Sequence[Tensor], norm: nn.Module | None) -> list[Tensor]:
    """relu(norm(x)) of each map, where a batch norm in training sees the pixels of all maps as one map.

    Running statistics are updated once, by the joint ones. As with any batch norm, each process of a distributed
    run has its own statistics, unless `norm` is a synchronised one. Once it evaluates, a batch norm is a fixed
    affine map per channel, and each map is normalised by itself.

    Args:
        maps (Tensor[N, C, H_l, W_l] each): fresh maps that nobody else reads; without a norm they are overwritten.
        norm: a batch norm of C channels, with or without synchronisation; None: ReLU only.

    Returns:
        A tensor of equal shape for each map.

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
    # In channels_last the pixels of all images make one column of a map of width 1, and any stretch of it is a
    # whole channels_last map: one copy in, none out. Otherwise there is a column per image, and a copy out.
    channels_last = all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    if channels_last:
        columns = [x.permute(0, 2, 3, 1).reshape(1, -1, 1, x.shape[1]).permute(0, 3, 1, 2) for x in maps]
    else:
        columns = [x.flatten(2).unsqueeze(3) for x in maps]
    joint = F.relu_(norm(torch.cat(columns, dim=2)))
    parts = zip(joint.split([column.shape[2] for column in columns], dim=2), maps)
    if channels_last:
        return [part.permute(0, 2, 3, 1).reshape(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2) for part, x in parts]
    return [part.reshape(x.shape).contiguous() for part, x in parts]
