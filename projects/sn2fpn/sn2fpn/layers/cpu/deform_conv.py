"""Deformable convolution by `grid_sample` and a 1x1 convolution.

`DeformConv2d` takes this kernel on a CPU, where torchvision's operator is several times slower because it reads one
value after the other on one core. Under `torch.jit.trace`, `torch.export` and `torch.compile` the module keeps the
operator, which is recorded once for any size and which tools can count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .pointwise import pointwise_conv

__all__ = ["deform_conv2d_by_grid"]


def deform_conv2d_by_grid(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    mask: Tensor | None = None,
) -> Tensor:
    """Return what `torchvision.ops.deform_conv2d` returns for the same arguments.

    The map is padded to sides that are powers of two. There the coordinates of `grid_sample`, (2i + 1) / n - 1 for the
    centre of pixel i of n, are exact for whole pixels. With offsets of zero the values are then those of the
    plain convolution, and the gradients of the offsets are the slopes to the right and down.
    """
    n, channels, rows, columns = offset.shape
    kernel_h, kernel_w = weight.shape[2:]
    groups = channels // (2 * kernel_h * kernel_w)
    height, width = (1 << (int(side) - 1).bit_length() for side in x.shape[2:])
    x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2])).reshape(n * groups, -1, height, width)
    dy, dx = offset.reshape(n * groups, kernel_h, kernel_w, 2, rows, columns).unbind(3)
    ys = _centres(kernel_h, rows, stride[0], padding[0], height).to(x).view(kernel_h, 1, rows, 1)
    xs = _centres(kernel_w, columns, stride[1], padding[1], width).to(x).view(kernel_w, 1, columns)
    grid = torch.stack((xs + dx * (2 / width), ys + dy * (2 / height)), dim=-1).view(n * groups, -1, columns, 2)
    read = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)  # the kernel's taps lie along the rows
    if mask is not None:
        read = read * mask.reshape(n * groups, 1, -1, columns)
    read = read.reshape(n, -1, rows, columns)  # (N, C * taps, H', W')
    return pointwise_conv(read, weight.reshape(weight.shape[0], -1, 1, 1), bias)


def _centres(taps: int, pixels: int, stride: int, padding: int, size: int) -> Tensor:
    """Return the `grid_sample` coordinates (Tensor[taps, pixels]) that a plain convolution reads along one axis."""
    at = torch.arange(taps).view(-1, 1) + torch.arange(pixels) * stride - padding
    return (2 * at + 1) / size - 1
