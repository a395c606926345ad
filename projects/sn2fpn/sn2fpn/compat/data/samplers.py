"""Detectron2's `data.samplers`: the order of the images, as indices for one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ... import distributed as comm
from ...data import samplers as own
from ...data.records import DatasetDicts
from ..absent import absent

__all__ = ["InferenceSampler", "RepeatFactorTrainingSampler", "TrainingSampler"]

__getattr__ = absent(__name__, __all__)


class _Shares:
    """The indices of a stream of `sn2fpn.data.samplers` that belong to this process."""

    _stream: Any

    def __iter__(self) -> Iterator[int]:
        mine = itertools.islice(iter(self._stream), comm.get_rank(), None, comm.get_world_size())
        return (index for _, index in mine)


class TrainingSampler(_Shares):
    """An endless stream of indices that shuffles the images anew for each epoch.

    Args:
        size: number of images.
        shuffle: False repeats the images in their order.
        seed: a seed that all processes share; None draws one from NumPy's global generator.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        stream = own.TrainingSampler(size, _shared_seed(seed))
        self._stream = stream if shuffle else enumerate(itertools.cycle(range(size)))


class RepeatFactorTrainingSampler(_Shares):
    """An endless stream of indices in which each image appears as often as its factor says.

    Args:
        repeat_factors: a factor for each image, see `repeat_factors_from_category_frequency`.
        shuffle: must be True.
        seed: see `TrainingSampler`.
    """

    def __init__(
        self, repeat_factors: torch.Tensor | Sequence[float], *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        if not shuffle:
            raise ValueError("shuffle: expected True, because the factors are shares of random draws, found False")
        factors = torch.as_tensor(repeat_factors).tolist()
        self._stream = own.RepeatFactorTrainingSampler(factors, _shared_seed(seed))

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: DatasetDicts, repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Return the factor of each image (Tensor[N]), see `sn2fpn.data.samplers.repeat_factors`."""
        return torch.tensor(own.repeat_factors(dataset_dicts, repeat_thresh, sqrt), dtype=torch.float32)


class InferenceSampler:
    """The share of the images of this process, each image once over all processes."""

    def __init__(self, size: int) -> None:
        self._indices = own.InferenceSampler(size, comm.get_rank(), comm.get_world_size()).indices

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def _shared_seed(seed: int | None) -> int:
    return comm.broadcast_object(int(np.random.randint(2**31))) if seed is None else seed
