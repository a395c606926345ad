"""Code of others that draws from global generators, with numbers that a generator of this package decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["seeded"]


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[int]:
    """Seed the global generators of Python, NumPy and torch's CPU inside this context, and yield the seed.

    Code that draws from them then draws the same numbers whenever `rng` is in the same state. Afterwards the
    generators go on as if nothing had been drawn.
    """
    seed = int(rng.integers(2**32))
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would also seed the GPU, which the training uses
    try:
        yield seed
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
