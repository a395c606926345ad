"""The sum of a fine map and a doubled coarse map, column by column.

`soft_nearest_add` takes this kernel for contiguous maps on a CPU: a broadcast addition over squares of 2 x 2 fine
pixels would run its inner loop along two columns, which does not vectorise. It also takes the kernel on every
device where a side of the fine map is odd, because such a map is not made of squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["add_doubled_by_columns"]


def add_doubled_by_columns(fine: Tensor, coarse: Tensor, alpha: float, out: Tensor) -> Tensor:
    """Write fine + alpha * nearest(coarse) into `out`, and return it.

    The even columns are added first, then the odd ones; in both, each coarse row is broadcast over a pair of fine rows.

    Args:
        fine (Tensor[N, C, H, W]): the fine map, with 2h or 2h - 1 rows and 2w or 2w - 1 columns.
        coarse (Tensor[N, C, h, w]): the coarse map, with the dtype of the fine one.
        alpha: factor on the coarse map.
        out (Tensor[N, C, H, W]): the result.
    """
    rows, odd_row = divmod(fine.shape[2], 2)
    for column in (0, 1):
        addend, total = fine[..., column::2], out[..., column::2]
        x = coarse[..., : addend.shape[3]]
        pairs, pair_totals = (t[:, :, : 2 * rows].unflatten(2, (rows, 2)) for t in (addend, total))
        torch.add(pairs, x[:, :, :rows].unsqueeze(3), alpha=alpha, out=pair_totals)
        if odd_row:  # the last coarse row covers one fine row
            torch.add(addend[:, :, -1], x[:, :, -1], alpha=alpha, out=total[:, :, -1])
    return out
