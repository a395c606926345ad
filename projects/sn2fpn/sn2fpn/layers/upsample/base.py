"""The interface of all upsampling modules, and the base of those with weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Doubling", "Upsample", "resize"]


def resize(x: Tensor, size: Sequence[int], mode: str, align_corners: bool | None = None) -> Tensor:
    """Return the map (Tensor[N, C, h, w]) at another size by `F.interpolate`, with the same dtype.

    Autocast on a GPU would interpolate in float32, and then every map that receives the result would be in float32 as
    well. The kernels compute each pixel in float32 in any case.

    Args:
        x: the map.
        size: height and width of the result.
        mode, align_corners: as in `F.interpolate`.
    """
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return F.interpolate(x, tuple(size), mode=mode, align_corners=align_corners)
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, tuple(size), mode=mode, align_corners=align_corners)


class Upsample(nn.Module):
    """The interface of an upsampling module.

    A subclass implements `forward`. It may override `add` where the sum can be computed without the upsampled map.
    """

    def forward(self, coarse: Tensor, size: Sequence[int]) -> Tensor:
        """Return the coarse map at the size of a finer map.

        Args:
            coarse (Tensor[N, C, h, w]): the map to upsample.
            size: height and width (H, W) of the result. A map that already has this size is returned unchanged.

        Returns:
            Tensor[N, C, H, W].
        """
        raise NotImplementedError

    def add(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the sum of the fine map and the upsampled coarse map.

        Args:
            fine (Tensor[N, C, H, W]): the map that receives the coarse one.
            coarse (Tensor[N, C, h, w]): the map to upsample.

        Returns:
            Tensor[N, C, H, W].
        """
        return fine + self(coarse, fine.shape[2:])


class Doubling(Upsample):
    """An upsampling module that doubles the height and width of a map; the base of all kinds with weights.

    A pyramid's fine map has 2n or 2n - 1 rows where the coarse map has n, and likewise for columns. Where the number
    is odd, the last row or column of the doubled map is dropped.
    """

    def forward(self, coarse: Tensor, size: Sequence[int]) -> Tensor:
        """Return the doubled coarse map, cropped to the size of the fine map.

        Args:
            coarse (Tensor[N, C, h, w]): the map to upsample.
            size: height and width (H, W) of the result; H is 2h or 2h - 1, and W is 2w or 2w - 1. A map that
                already has this size is returned unchanged, and the weights then take no part.

        Returns:
            Tensor[N, C, H, W].

        Raises:
            ValueError: the size is another one.
        """
        small, (height, width) = tuple(coarse.shape[2:]), tuple(size)
        if small == (height, width):
            return coarse
        if ((height + 1) // 2, (width + 1) // 2) != small:
            raise ValueError(
                f"{type(self).__name__} doubles a map: for a coarse map of {small} pixels, height and width of the"
                f" fine map must be 2n or 2n - 1, found {(height, width)}"
            )
        return self.double_size(coarse)[:, :, :height, :width]

    def double_size(self, coarse: Tensor) -> Tensor:
        """Return the map (Tensor[N, C, h, w]) at twice its height and width (Tensor[N, C, 2h, 2w])."""
        raise NotImplementedError
