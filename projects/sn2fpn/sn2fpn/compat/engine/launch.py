"""Detectron2's `engine.launch`: the start of one process per GPU."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from ... import distributed as comm
from ...engine.processes import TIMEOUT as DEFAULT_TIMEOUT
from ...engine.processes import launch as _launch
from ...errors import ArgumentError
from ..absent import absent

__all__ = ["DEFAULT_TIMEOUT", "launch"]

__getattr__ = absent(__name__, __all__)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    device: str | None = None,
) -> None:
    """Call `main_func(*args)` in every process of the job; see `sn2fpn.engine.launch`.

    Args:
        main_func: the function to call; with several processes, it can be pickled.
        num_gpus_per_machine: the number of processes on this machine; 0 stands for one.
        num_machines: the number of machines.
        machine_rank: the rank of this machine, counted from 0.
        dist_url: the address tcp://HOST:PORT at which processes meet; on one machine, "auto" or None takes a free port.
        args: arguments of `main_func`.
        timeout: how long a process waits for the others, once they have met.
        device: the device of the model; None stands for the GPUs, or for the CPU where there is none.

    Raises:
        ArgumentError: several machines have no address to meet at.
        UserError: more GPUs were requested than there are, or a process of the run has died.
    """
    if num_machines > 1 and dist_url in (None, "auto") and not comm.is_launched():
        raise ArgumentError("dist_url", f"expected tcp://HOST:PORT for {num_machines} machines, found {dist_url!r}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    processes = max(1, num_gpus_per_machine)
    _launch(main_func, processes, num_machines, machine_rank, dist_url, args, device, timeout=timeout)
