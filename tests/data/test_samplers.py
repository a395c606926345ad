"""Tests of the samplers: permutations, shares of processes, repetition, grouping and resuming."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from sn2fpn.data.samplers import (
    BatchStream,
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
    repeat_factors,
    sample_rng,
)
from sn2fpn.errors import ArgumentError


def take(stream: object, count: int) -> list:
    return list(itertools.islice(stream, count))


def test_every_pass_is_another_permutation() -> None:
    samples = take(TrainingSampler(10, seed=3), 30)
    assert [p for p, _ in samples] == list(range(30))
    passes = [[i for _, i in samples[k : k + 10]] for k in (0, 10, 20)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0] != passes[1] != passes[2]
    assert samples == take(TrainingSampler(10, seed=3), 30) != take(TrainingSampler(10, seed=4), 30)


def test_sample_randomness_is_a_function_of_seed_and_position() -> None:
    draws = {(s, p): sample_rng(s, p).random() for s in range(3) for p in range(50)}
    assert len(set(draws.values())) == 150
    assert sample_rng(2, 17).random() == draws[2, 17]


def test_processes_share_the_batches_of_one_process() -> None:
    sampler = TrainingSampler(10, seed=0)
    whole = take(BatchStream(sampler, 4), 12)
    shares = [take(BatchStream(sampler, 2, rank, 2), 12) for rank in (0, 1)]
    for one, left, right in zip(whole, *shares):
        assert sorted(one) == sorted(left + right)


@pytest.mark.parametrize("wide", [None, [True] * 3 + [False] * 7])
def test_resuming_skips_the_front(wide: list[bool] | None) -> None:
    sampler = TrainingSampler(10, seed=0)
    whole = take(BatchStream(sampler, 3, 1, 2, wide), 40)
    assert take(BatchStream(sampler, 3, 1, 2, wide, start=17), 23) == whole[17:]


def test_grouping_keeps_kinds_apart_and_loses_nothing() -> None:
    wide = [i % 3 == 0 for i in range(12)]
    batches = take(BatchStream(TrainingSampler(12, seed=1), 4, wide=wide), 60)
    assert all(len({wide[i] for _, i in batch}) == 1 and len(batch) == 4 for batch in batches)
    positions = sorted(p for batch in batches for p, _ in batch)
    missing = set(range(positions[-1])) - set(positions)
    assert len(missing) <= 2 * 3  # at most one incomplete batch of each kind is waiting


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (0, 2), (100, 7)])
def test_inference_shares(size: int, world: int) -> None:
    shares = [InferenceSampler(size, rank, world) for rank in range(world)]
    # The shares are contiguous, in order and disjoint.
    assert [i for share in shares for _, i in share] == list(range(size))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_repeat_factors_follow_the_formula() -> None:
    def record(*classes: int) -> dict:
        return {"annotations": [{"category_id": c} for c in classes]}

    dicts = [record(0)] * 7 + [record(0, 1), record(1, 2), record()]
    # The classes are in the shares f = 0.8, 0.2 and 0.1 of the ten images.
    factors = repeat_factors(dicts, 0.4)
    assert factors == pytest.approx([1.0] * 7 + [math.sqrt(2), 2.0, 1.0])
    assert repeat_factors(dicts, 0.4, sqrt=False) == pytest.approx([1.0] * 7 + [2.0, 4.0, 1.0])
    assert repeat_factors(dicts, 0.0) == [1.0] * 10


def test_repeat_sampler_repeats_on_average() -> None:
    sampler = RepeatFactorTrainingSampler([1.0, 1.5, 3.0, 1.25], seed=0)
    passes = [sampler.epoch(np.random.default_rng(e)) for e in range(2000)]
    counts = np.bincount(np.concatenate(passes), minlength=4) / len(passes)
    assert counts == pytest.approx([1.0, 1.5, 3.0, 1.25], abs=0.05)
    assert {int(np.bincount(p, minlength=4)[1]) for p in passes} == {1, 2}
    assert take(sampler, 50) == take(RepeatFactorTrainingSampler([1.0, 1.5, 3.0, 1.25], seed=0), 50)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TrainingSampler(0, seed=1), "size: expected a whole number of at least 1, found 0"),
        (lambda: TrainingSampler(9, seed=-1), "seed: expected a whole number of at least 0, found -1"),
        (lambda: RepeatFactorTrainingSampler([0.0, 0.0], 1), "factors: expected finite numbers"),
        (lambda: RepeatFactorTrainingSampler([1.0, math.nan], 1), "factors: expected finite numbers"),
        (lambda: RepeatFactorTrainingSampler([1.0, -1.0], 1), "factors: expected finite numbers"),
        (lambda: repeat_factors([], -0.1), "threshold: expected a number of at least 0 and of at most 1, found -0.1"),
        (lambda: repeat_factors([], 7), "threshold: expected a number of at least 0 and of at most 1, found 7"),
        (lambda: InferenceSampler(9, 2, 2), "rank: expected a number below the 2 processes, found 2"),
        (lambda: InferenceSampler(9, 0, 0), "world_size: expected a whole number of at least 1, found 0"),
        (lambda: BatchStream(TrainingSampler(9, 1), 0), "batch_size: expected a whole number of at least 1, found 0"),
        (lambda: BatchStream(TrainingSampler(9, 1), 2, start=-1), "start: expected a whole number of at least 0"),
        (lambda: BatchStream(TrainingSampler(3, 1), 2, wide=[True]), "wide: expected an entry for each of 3 images"),
    ],
)
def test_what_would_never_make_a_batch_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{words}"):
        make()
