"""The start of one process per device, which this module spawns or `torchrun` has started."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from .. import distributed as comm
from ..errors import UserError
from ..program import STOP_SIGNALS, Interrupted, StopSignals, default_signals, run_program
from .meeting import fresh_part

__all__ = ["TIMEOUT", "launch"]

TIMEOUT = timedelta(minutes=30)
"""How long the processes of a job wait for each other by default."""

_DEVICE = "MODEL.DEVICE (train.device in a Python config)"
_GRACE_S = 3
_LEAVE_S = 5
_POLL_S = 0.2


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    device: str = "cuda",
    debug: bool = False,
    timeout: timedelta = TIMEOUT,
) -> None:
    """Call `main_func(*args)` in every process of the job; the arguments are those of Detectron2's `launch`.

    A single process runs in place. Several processes use torch.distributed, with NCCL if the model is on a GPU and with
    gloo on CPUs. Under `torchrun`, which sets RANK, WORLD_SIZE and LOCAL_RANK, no process is spawned.

    Args:
        main_func: the function to call; it can be pickled.
        num_gpus_per_machine: the number of processes on this machine.
        num_machines: the number of machines.
        machine_rank: the rank of this machine, counted from 0.
        dist_url: the address tcp://HOST:PORT at which processes meet; "auto" or None takes a free local port.
        args: arguments of `main_func`; they can be pickled.
        device: the device of the model.
        debug: whether a mistake in a process is shown with its traceback, and not as one message.
        timeout: how long a process waits for the others, once they have met.

    Raises:
        UserError: more GPUs were requested than there are, or a process of the run has died.
        Interrupted: a signal has stopped the run.
        SystemExit: another process failed, which has printed why.
    """
    if comm.is_launched():
        mp._prctl_pr_set_pdeathsig(signal.SIGTERM)  # torchrun may be killed
        _check_devices(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), device)
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        _work(main_func, args, rank, int(os.environ["WORLD_SIZE"]), local_rank, "env://", device, timeout)
        return
    _check_devices(num_gpus_per_machine, device)
    world_size = num_machines * num_gpus_per_machine
    if world_size == 1:
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)  # random numbers, times and memory are those of the present device
        main_func(*args)
        return
    if dist_url in (None, "auto"):
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    spawned = (main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, device, args, debug, timeout)
    with StopSignals(patient=True) as signals:
        processes = mp.spawn(_child, nprocs=num_gpus_per_machine, args=spawned, join=False).processes
        try:
            codes = _wait(processes, signals)
        finally:
            for process in processes:
                process.kill()
                process.join()
    _end_as_children_did(codes, [process.pid for process in processes], machine_rank * num_gpus_per_machine)


def _wait(processes: list[BaseProcess], signals: StopSignals) -> list[int]:
    """Wait until all processes have ended or one has failed, and return their exit codes; 0 for those that still run.

    The first signal is passed on to all, which save a checkpoint and end.
    """
    told, deadline = False, math.inf
    while (running := [p for p in processes if p.is_alive()]) and time.monotonic() < deadline:
        wait([p.sentinel for p in running], timeout=_POLL_S)
        if signals.heard and not told:
            told = True
            for process in running:
                os.kill(process.pid, signals.heard)
        codes = [p.exitcode for p in processes if p.exitcode]
        if any(_signal_of(code) is None for code in codes):
            break  # the others can only wait for the one that has failed
        if codes and deadline == math.inf:
            deadline = time.monotonic() + _LEAVE_S  # all have saved, since they do so together
    return [p.exitcode or 0 for p in processes]


def _signal_of(code: int) -> int | None:
    """Return the number of the signal that has asked a process with this exit code to stop, or None."""
    number = -code if code < 0 else code - 128  # negative codes: by default, before the process could handle signals
    return number if number in STOP_SIGNALS else None


def _end_as_children_did(codes: list[int], pids: list[int], first_rank: int) -> None:
    for i, code in enumerate(codes):
        if code < 0 and _signal_of(code) is None:
            number = signal.Signals(-code)
            cause = ", usually because the machine ran out of memory" if number == signal.SIGKILL else ""
            raise UserError(
                f"process {first_rank + i} of the run (pid {pids[i]}) was killed by {number.name}{cause}; the other "
                "processes were ended in the middle of a step. --resume continues from the last checkpoint"
            )
    failed = [code for code in codes if code and _signal_of(code) is None]
    if failed:
        sys.exit(failed[0] if failed[0] == 2 else 1)
    if any(codes):
        raise Interrupted(next(number for code in codes if (number := _signal_of(code))))


def _child(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    per_machine: int,
    machine_rank: int,
    dist_url: str,
    device: str,
    args: tuple[Any, ...],
    debug: bool,
    timeout: timedelta,
) -> None:
    if not parent_process().is_alive():  # it was killed while this process started
        sys.exit(1)
    os.environ["LOCAL_RANK"] = str(local_rank)
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // per_machine))
    rank = machine_rank * per_machine + local_rank
    work = partial(_work, main_func, args, rank, world_size, local_rank, dist_url, device, timeout)
    try:
        code = run_program(work, debug=debug)
    except Exception:
        traceback.print_exc()
        code = 1
    for number in STOP_SIGNALS:  # an echo of the signal that has ended the work must not disturb the end of Python
        signal.signal(number, signal.SIG_IGN)
    Finalize(None, _end_at_once, (code,), exitpriority=-100)  # after data workers were ended
    sys.exit(code)


def _end_at_once(code: int) -> None:
    """End this process without the shutdown of Python, during which threads of torch may abort a finished process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    world_size: int,
    local_rank: int,
    dist_url: str,
    device: str,
    timeout: timedelta,
) -> None:
    """Join the other processes and do the work. All usually meet the same error, which one of them reports."""
    try:
        _join(rank, world_size, local_rank, dist_url, device, timeout)
        main_func(*args)
        _leave()
    except UserError:
        time.sleep(_GRACE_S if local_rank else 0)  # until the first process has reported it, which ends the others
        raise
    except Interrupted as e:
        raise e if rank == 0 else Interrupted(e.number) from None
    except (RuntimeError, dist.DistError) as e:
        if not (isinstance(e, dist.DistError) or "gloo" in str(e)):
            raise
        time.sleep(_GRACE_S)  # until the process that knows what has happened ends this one
        cause = str(e).strip().splitlines()[0]
        raise UserError(
            f"process {rank} has lost its connection to another process of the run, which has ended or "
            f"cannot be reached: {cause}. --resume continues from the last checkpoint"
        ) from e


def _join(rank: int, world_size: int, local_rank: int, dist_url: str, device: str, timeout: timedelta) -> None:
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank)
    try:
        with default_signals():  # Python could not act on them while torch waits
            store, *_ = next(dist.rendezvous(dist_url, rank, world_size, timeout=TIMEOUT))
            store = fresh_part(store, rank, world_size, TIMEOUT)
            backend = "nccl" if on_gpu else "gloo"
            gpu = torch.device("cuda", local_rank) if on_gpu else None
            dist.init_process_group(
                backend, store=store, world_size=world_size, rank=rank, timeout=timeout, device_id=gpu
            )
            dist.barrier()
    except (dist.DistNetworkError, dist.DistStoreError, ValueError) as e:
        raise UserError(f"--dist-url {dist_url}: process {rank} of {world_size} could not join the others: {e}") from e


def _leave() -> None:
    """Leave the group together, since gloo's threads fail if a peer ends first."""
    dist.barrier()
    dist.destroy_process_group()


def _check_devices(wanted: int, device: str) -> None:
    if not device.startswith("cuda"):
        return
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if present == 0:
        raise UserError(f"{_DEVICE} is {device!r}, but there is no GPU; set it to cpu")
    if wanted > 1 and ":" in device:
        raise UserError(
            f"{_DEVICE}: expected 'cuda' for {wanted} processes, each of which takes a GPU of its own, found {device!r}"
        )
    if (torch.device(device).index or 0) >= present:
        raise UserError(f"{_DEVICE}: expected cuda:0 to cuda:{present - 1}, the GPUs present; found {device!r}")
    if wanted > present:
        flag = "--nproc-per-node" if comm.is_launched() else "--num-gpus"
        raise UserError(f"{flag}: expected at most {present}, the number of GPUs present; found {wanted}")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
