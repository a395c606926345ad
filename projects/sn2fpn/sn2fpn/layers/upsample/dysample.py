"""DySample: upsampling by reading the coarse map at learned positions.

    y(q) = x(p(q) + s * d(q)),  d = pixel_shuffle(conv1x1(x))

p(q) is the centre of the fine pixel q in the coarse map, and x is read bilinearly, repeating its edges. The scope s is
1/4, or sigmoid(pixel_shuffle(conv1x1(x))) / 2 where it is dynamic.
Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023 (arXiv 2308.15085).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ArgumentError
from ...ranges import check_count
from .base import Doubling

__all__ = ["DySample"]


class DySample(Doubling):
    """Upsampling by bilinear sampling at positions that a 1x1 convolution shifts ("linear + pixel shuffle" style).

    This is the paper's DySample, whose scope factor 1/4 keeps small offsets from crossing, or DySample+, whose scope
    factors a second 1x1 convolution without a bias computes from the map; they start at 1/4 as well. The channels form
    groups with offsets of their own. A constant map stays constant, and without offsets the result is bilinear
    interpolation with half-pixel centres. Positions are computed in float32 under autocast too.

    With C channels and g groups it has 8 g (C + 1) parameters (8,224 at C = 256 with the defaults), and 8 g C
    multiply-adds per coarse pixel beside the sampling. A dynamic scope adds 8 g C of both.

    Args:
        channels: number of channels C.
        groups: number of groups g, a divisor of C.
        dynamic_scope: whether the scope factors are computed from the map (DySample+, "dyscope").

    Raises:
        ArgumentError: the groups do not divide the channels, or a number is not positive.

    Example:
        >>> import torch
        >>> from sn2fpn.layers import DySample
        >>> DySample(8)(torch.ones(1, 8, 5, 6), (9, 12)).shape
        torch.Size([1, 8, 9, 12])
    """

    def __init__(self, channels: int, groups: int = 4, dynamic_scope: bool = False) -> None:
        super().__init__()
        if check_count("channels", channels) % check_count("groups", groups):
            raise ArgumentError("groups", f"expected a divisor of the {channels} channels, found {groups}")
        self.groups = groups
        self.offset = nn.Conv2d(channels, 8 * groups, 1)  # (x, y) of each group and of each of four fine pixels
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)
        self.scope = nn.Conv2d(channels, 8 * groups, 1, bias=False) if dynamic_scope else None
        if self.scope is not None:
            nn.init.zeros_(self.scope.weight)

    def double_size(self, coarse: Tensor) -> Tensor:
        """Return the map (Tensor[N, C, h, w]) at twice its height and width (Tensor[N, C, 2h, 2w])."""
        (n, channels, h, w), g = coarse.shape, self.groups
        exact = torch.promote_types(coarse.dtype, torch.float32)
        offset = self.offset(coarse).to(exact)
        offset = offset * (0.25 if self.scope is None else self.scope(coarse).to(exact).sigmoid() * 0.5)
        offset = F.pixel_shuffle(offset, 2).reshape(n, 2, g, 2 * h, 2 * w)
        # `grid_sample` counts from -1 to 1 across the map, so one coarse pixel is 2 / side.
        on = {"dtype": exact, "device": offset.device}
        xs, ys = ((2 * torch.arange(2 * side, **on) + 1) / (2 * side) - 1 for side in (w, h))
        x = xs + offset[:, 0] * (2 / w)
        y = ys.unsqueeze(1) + offset[:, 1] * (2 / h)
        groups = coarse.to(exact).reshape(n * g, channels // g, h, w)
        grid = torch.stack((x, y), dim=-1).flatten(0, 1)
        fine = F.grid_sample(groups, grid, padding_mode="border", align_corners=False)
        return fine.reshape(n, channels, 2 * h, 2 * w).to(coarse.dtype)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, dynamic_scope={self.scope is not None}"
