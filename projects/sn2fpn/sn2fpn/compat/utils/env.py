"""Detectron2's `utils.env`: the seeds of all random generators."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from ..absent import absent

__all__ = ["seed_all_rng"]

__getattr__ = absent(__name__, __all__)


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the global random generators of Python, NumPy and torch; None takes a random seed.

    A training has a seed of its own, `cfg.SEED`.
    """
    seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
