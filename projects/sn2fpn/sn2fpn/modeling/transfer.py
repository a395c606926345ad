"""Tensors that move between the host and a GPU without a wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["rows_of_groups", "tensor_like"]


def tensor_like(
    values: Sequence[float] | Sequence[Sequence[float]], like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Return numbers as a tensor on the device of another one, and with its dtype by default.

    `Tensor.new_tensor` waits until a GPU has done all that was asked of it before. This function does not.
    """
    return torch.tensor(values, dtype=dtype or like.dtype).to(like.device, non_blocking=True)


def rows_of_groups(groups: Tensor, number: int) -> list[Tensor]:
    """Return the rows (int64 Tensor[n]) that belong to each of the groups 0, 1, ..., `number` - 1, in rising order.

    The sizes of all groups are read from a GPU at once. A search for each group would wait for the GPU `number` times.

    Args:
        groups (integer Tensor[R]): the group of each row.
        number: the number of groups.
    """
    sizes = (groups[:, None] == torch.arange(number, device=groups.device)).sum(0)
    return list(groups.argsort(stable=True).split(sizes.tolist()))
