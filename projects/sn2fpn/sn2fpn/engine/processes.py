"""The start of one process per device, which this module spawns or `torchrun` has started."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..errors import UserError
from ..program import report

__all__ = ["launch"]

_TIMEOUT = timedelta(minutes=30)
_GRACE_S = 3


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    device: str = "cuda",
) -> None:
    """Call `main_func(*args)` in every process of the job; the arguments are those of Detectron2's `launch`.

    A single process runs in place. Several processes use torch.distributed, with NCCL if the model is on a GPU and with
    gloo on CPUs. Under `torchrun`, where RANK and WORLD_SIZE are set, no process is spawned.

    Args:
        main_func: the function to call; it can be pickled.
        num_gpus_per_machine: the number of processes on this machine.
        num_machines: the number of machines.
        machine_rank: the rank of this machine, counted from 0.
        dist_url: the address tcp://HOST:PORT at which processes meet; "auto" or None takes a free local port.
        args: arguments of `main_func`; they can be pickled.
        device: the device of the model.

    Raises:
        UserError: more GPUs were requested than there are.
        SystemExit: another process failed, which has printed why.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _check_devices(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), device)
        _join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]), "env://", device)
        main_func(*args)
        _leave()
        return
    _check_devices(num_gpus_per_machine, device)
    world_size = num_machines * num_gpus_per_machine
    if world_size == 1:
        main_func(*args)
        return
    if dist_url in (None, "auto"):
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    spawned = (main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, device, args)
    context = mp.spawn(_child, nprocs=num_gpus_per_machine, args=spawned, join=False)
    _wait(context)


def _wait(context: Any) -> None:
    """Wait for the children. Ctrl-C reaches them too, and they save a checkpoint before they end."""
    interrupted = False
    while True:
        try:
            if context.join():
                break
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
        except mp.ProcessExitedException as e:
            sys.exit(e.exit_code if e.exit_code in (2, 130) else 1)
    if interrupted:
        raise KeyboardInterrupt


def _child(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    per_machine: int,
    machine_rank: int,
    dist_url: str,
    device: str,
    args: tuple[Any, ...],
) -> None:
    os.environ["LOCAL_RANK"] = str(local_rank)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends its notice to all processes; the parent acts on it
    try:
        if device == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // per_machine))
        _join(machine_rank * per_machine + local_rank, world_size, local_rank, dist_url, device)
        main_func(*args)
        _leave()
    except UserError as e:
        if local_rank:  # all processes usually meet the same mistake; the first one reports it and ends the others
            time.sleep(_GRACE_S)
        report(e)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _join(rank: int, world_size: int, local_rank: int, dist_url: str, device: str) -> None:
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=dist_url, world_size=world_size, rank=rank, timeout=_TIMEOUT
        )
    except (dist.DistNetworkError, dist.DistStoreError, ValueError) as e:
        raise UserError(f"--dist-url {dist_url}: process {rank} of {world_size} could not join the others: {e}") from e
    dist.barrier()


def _leave() -> None:
    """Leave the group together, since gloo's threads fail if a peer ends first."""
    dist.barrier()
    dist.destroy_process_group()


def _check_devices(wanted: int, device: str) -> None:
    if not device.startswith("cuda"):
        return
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if present == 0:
        raise UserError("MODEL.DEVICE (train.device in a Python config) is 'cuda', but there is no GPU; set it to cpu")
    if wanted > present:
        raise UserError(f"--num-gpus: expected at most {present}, the number of GPUs present; found {wanted}")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
