"""Detectron2's `utils.comm`: the exchange between processes."""

from __future__ import annotations

from ...distributed import all_gather, gather, get_local_rank, get_rank, get_world_size, is_main_process
from ...distributed import barrier as synchronize
from ..absent import absent

__all__ = ["all_gather", "gather", "get_local_rank", "get_rank", "get_world_size", "is_main_process", "synchronize"]

__getattr__ = absent(__name__, __all__)
