"""The seed of a run, and the state of its random generators as part of a checkpoint."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from .. import distributed as comm

__all__ = ["Randomness", "seed_everything"]

logger = logging.getLogger(__name__)


def seed_everything(seed: int) -> int:
    """Seed torch in this process and return the seed that all processes share.

    A negative seed is replaced by a random one. With any other seed, deterministic algorithms are requested, so that a
    run on CPUs can be repeated exactly.
    """
    if seed >= 0:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it would fill each new tensor with NaN first
        torch.backends.cudnn.deterministic = True
    else:
        seed = int.from_bytes(os.urandom(4), "big") >> 1
    seed = comm.broadcast_object(seed)
    torch.manual_seed(seed + comm.get_rank())
    return seed


class Randomness:
    """The seed of a run and the random state of each process, which a checkpoint holds so that a run can be resumed.

    Args:
        seed: the seed that all processes share.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._states: list[dict[str, Any]] = []

    def record(self) -> None:
        """Collect the present states of all processes on the main process, for `state_dict`."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        self._states = comm.gather({"torch": torch.get_rng_state(), "cuda": cuda})

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "random_states": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed = state["seed"]
        states = state["random_states"]
        if len(states) != comm.get_world_size():
            logger.warning(
                "The checkpoint was written by %d processes and this run has %d, so its random state is a new one",
                len(states),
                comm.get_world_size(),
            )
            return
        own = states[comm.get_rank()]
        torch.set_rng_state(own["torch"].cpu())
        if own["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(own["cuda"].cpu())
