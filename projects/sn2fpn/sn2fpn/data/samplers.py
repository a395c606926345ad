"""Which image comes when. Training samplers describe one endless stream that all processes share.

A stream is a sequence of `(position, index)`: the position counts samples over all processes, the
index says which image. A sample's randomness depends on nothing but (seed, position), so a run does not
change with the number of workers, and it resumes by skipping the front of the (cheap) stream.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from .catalog import DatasetDicts

__all__ = [
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "InferenceSampler",
    "BatchStream",
    "repeat_factors",
    "sample_rng",
]

Sample = tuple[int, int]  # (position in the stream, image index)

_ORDER, _SAMPLE = 1, 2  # what a random generator is for; keeps the two kinds of streams apart


def sample_rng(seed: int, position: int) -> np.random.Generator:
    """The generator for the augmentation of the sample at `position`."""
    return np.random.default_rng([seed, position, _SAMPLE])


class TrainingSampler:
    """An endless stream of image indices: one shuffled pass over the data after another.

    Args:
        size: number of images.
        seed: non-negative; the same on all processes.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed

    def __iter__(self) -> Iterator[Sample]:
        passes = (self.epoch(np.random.default_rng([self.seed, e, _ORDER])).tolist() for e in itertools.count())
        return enumerate(itertools.chain.from_iterable(passes))

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """The image indices of one pass, in order."""
        return rng.permutation(self.size)


class RepeatFactorTrainingSampler(TrainingSampler):
    """As TrainingSampler, but image i comes `factors[i]` times a pass on average.

    Args:
        factors: at least 1 each, see `repeat_factors`. The fraction is rounded up or down at random.
    """

    def __init__(self, factors: Sequence[float], seed: int) -> None:
        super().__init__(len(factors), seed)
        self.factors = np.asarray(factors, dtype=np.float64)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        times = np.floor(self.factors + rng.random(self.size)).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(self.size), times))


def repeat_factors(dataset_dicts: DatasetDicts, threshold: float, sqrt: bool = True) -> list[float]:
    """How often each image should come: images of rare classes more often.

    With f(c) the share of images that contain class c, a class has r(c) = max(1, sqrt(threshold / f(c))),
    and an image the largest r of its classes ("LVIS", Gupta et al. 2019, appendix B.2); without `sqrt`
    the root is left out.
    """
    classes = [{a["category_id"] for a in d["annotations"]} for d in dataset_dicts]
    images_with = Counter(c for ids in classes for c in ids)
    factor = {}
    for c, count in images_with.items():
        ratio = threshold / (count / len(dataset_dicts))
        factor[c] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
    return [max((factor[c] for c in ids), default=1.0) for ids in classes]


class InferenceSampler:
    """A contiguous share of all images for each process; every image once, none twice.

    Args:
        size: number of images.
        rank, world_size: this process among all.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        share, rest = divmod(size, world_size)
        start = rank * share + min(rank, rest)  # the first `rest` processes take one more
        self.indices = range(start, start + share + (rank < rest))

    def __iter__(self) -> Iterator[Sample]:
        return ((i, i) for i in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class BatchStream:
    """One process's batches of a training stream: positions rank, rank + world_size, …

    So a batch of all processes together is the batch that a single process would draw (without grouping).

    Args:
        sampler: the shared stream.
        batch_size: images per batch of this process.
        wide: for each image, whether it is wider than tall; given, a batch holds one kind only, which
            saves padding. A batch comes when a kind has gathered `batch_size` images.
        start: batches to skip.
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
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.wide = wide
        self.start = start

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
