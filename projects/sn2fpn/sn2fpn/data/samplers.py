"""Samplers, which decide the order of the images. A training sampler is one endless stream that all processes share.

A stream is a sequence of `(position, index)`: the position counts samples over all processes, and the index is that of
the image. The random numbers of a sample depend on the seed and the position only. Therefore a run does not depend on
the number of workers, and a resumed run skips the beginning of the stream, which costs little.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ArgumentError
from ..ranges import check_count, check_number
from .records import DatasetDicts, Records

__all__ = [
    "SAMPLERS",
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "InferenceSampler",
    "BatchStream",
    "repeat_factors",
    "sample_rng",
]

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
"""The values of `DATALOADER.SAMPLER_TRAIN`."""

Sample = tuple[int, int]  # (position in the stream, image index)

_ORDER, _SAMPLE = 1, 2  # two kinds of random generators, which must not share a seed


def sample_rng(seed: int, position: int) -> np.random.Generator:
    """Return the random generator for the augmentation of the sample at `position`."""
    return np.random.default_rng([seed, position, _SAMPLE])


class TrainingSampler:
    """An endless stream of image indices that shuffles the data anew for each epoch.

    Args:
        size: number of images.
        seed: a number >= 0 that all processes share.

    Raises:
        ArgumentError: there is no image, or the seed is negative.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = check_count("size", size)
        self.seed = check_count("seed", seed, at_least=0)

    def __iter__(self) -> Iterator[Sample]:
        epochs = (self.epoch(np.random.default_rng([self.seed, e, _ORDER])).tolist() for e in itertools.count())
        return enumerate(itertools.chain.from_iterable(epochs))

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Return the image indices of one epoch in their order."""
        return rng.permutation(self.size)


class RepeatFactorTrainingSampler(TrainingSampler):
    """A training sampler in which image i appears `factors[i]` times per epoch on average.

    Args:
        factors: numbers >= 0, see `repeat_factors`; their fractions are rounded up or down at random.
        seed: a number >= 0 that all processes share.

    Raises:
        ArgumentError: a factor is negative or not finite, or all are 0, which would make empty epochs without end.
    """

    def __init__(self, factors: Sequence[float], seed: int) -> None:
        super().__init__(len(factors), seed)
        self.factors = np.asarray(factors, dtype=np.float64)
        if not (np.isfinite(self.factors).all() and (self.factors >= 0).all() and self.factors.any()):
            raise ArgumentError("factors", "expected finite numbers of at least 0 that are not all 0")

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        times = np.floor(self.factors + rng.random(self.size)).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(self.size), times))


def repeat_factors(dataset_dicts: DatasetDicts | Records, threshold: float, sqrt: bool = True) -> list[float]:
    """Compute how often each image should appear, so that images with rare classes appear more often.

    If f(c) is the share of the images that contain class c, the repeat factor of the class is
    r(c) = max(1, sqrt(threshold / f(c))), and the factor of an image is the largest r(c) of its classes (Gupta et al.,
    "LVIS", CVPR 2019, appendix B.2).

    Args:
        dataset_dicts: the images.
        threshold: the share of the images below which a class is repeated.
        sqrt: take the square root of the ratio; False takes the ratio itself.

    Raises:
        ArgumentError: the threshold is no share.
    """
    check_number("threshold", threshold, at_least=0, at_most=1)
    classes = [{a["category_id"] for a in d["annotations"]} for d in dataset_dicts]
    images_with = Counter(c for ids in classes for c in ids)
    factor = {}
    for c, count in images_with.items():
        ratio = threshold / (count / len(dataset_dicts))
        factor[c] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
    return [max((factor[c] for c in ids), default=1.0) for ids in classes]


class InferenceSampler:
    """A sampler that gives each process a contiguous share of the images, each image exactly once.

    Args:
        size: number of images.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        ArgumentError: a number is negative, or there is no process of that rank.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        check_count("size", size, at_least=0)
        _check_rank(rank, world_size)
        share, rest = divmod(size, world_size)
        start = rank * share + min(rank, rest)  # the first `rest` processes take one image more
        self.indices = range(start, start + share + (rank < rest))

    def __iter__(self) -> Iterator[Sample]:
        return ((i, i) for i in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class BatchStream:
    """The batches of one process, made from the positions rank, rank + world_size, … of a training stream.

    Without grouping, the batches of all processes together are the batch that a single process would draw.

    Args:
        sampler: the stream that all processes share.
        batch_size: number of images per batch of this process.
        rank: rank of this process.
        world_size: number of processes.
        wide: whether each image is wider than tall. If it is given, a batch holds only wide or only tall images, which
            saves padding; a batch is complete when `batch_size` images of one kind have been drawn.
        start: number of batches to skip.

    Raises:
        ArgumentError: a number is out of its range, or `wide` has not one entry for each image.
    """

    def __init__(
        self,
        sampler: TrainingSampler,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        wide: Sequence[bool] | None = None,
        start: int = 0,
    ) -> None:
        _check_rank(rank, world_size)
        if wide is not None and len(wide) != sampler.size:
            raise ArgumentError("wide", f"expected an entry for each of {sampler.size} images, found {len(wide)}")
        self.sampler = sampler
        self.batch_size = check_count("batch_size", batch_size)
        self.rank, self.world_size = rank, world_size
        self.wide = wide
        self.start = check_count("start", start, at_least=0)

    def __iter__(self) -> Iterator[list[Sample]]:
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[Sample]]:
        waiting: tuple[list[Sample], list[Sample]] = ([], [])
        for sample in itertools.islice(self.sampler, self.rank, None, self.world_size):
            kind = waiting[int(self.wide[sample[1]]) if self.wide is not None else 0]
            kind.append(sample)
            if len(kind) == self.batch_size:
                yield kind.copy()
                kind.clear()


def _check_rank(rank: int, world_size: int) -> None:
    check_count("world_size", world_size)
    if check_count("rank", rank, at_least=0) >= world_size:
        raise ArgumentError("rank", f"expected a number below the {world_size} processes, found {rank}")
