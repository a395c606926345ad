"""Where cells run: on this machine or on a Slurm cluster, in both cases as jobs of submitit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import submitit

from ...errors import UserError
from ...program import STOP_SIGNALS
from ..files import read_json, write_json

__all__ = ["Executor", "Local", "Slurm", "minutes"]

# States of sacct in which a job will still run.
_ALIVE = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED", "CONFIGURING")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_FOREVER_MIN = 60 * 24 * 365
_MAX_TIMEOUTS = 1000  # a time limit is no failure, since the cell continues in its next turn


class Executor(ABC):
    """Starts jobs."""

    slots: int | None  # number of jobs that may run at a time; None means any number, because the cluster queues them

    @abstractmethod
    def submit(self, jobs: Mapping[str, Callable[[], Any]]) -> dict[str, submitit.Job[Any]]:
        """Start or queue callables by name and return their jobs, which have `done()`, `job_id` and `paths`."""


class Local(Executor):
    """Runs jobs on this machine through submitit's local executor, a few at a time.

    Args:
        folder: Folder for submitit's files and the output of the jobs.
        parallel: Number of jobs that run at a time.
        num_gpus: Number of GPUs of each job, 0 on CPUs. Each job sees only its GPUs.
        processes: Number of processes that each job starts. They share the cores of the job, and each computes with as
            many threads as it has cores, unless OMP_NUM_THREADS is set.
        jobs_per_gpu: Number of jobs that may share a GPU.

    Raises:
        UserError: the visible GPUs are too few.
    """

    def __init__(
        self, folder: Path, parallel: int = 1, num_gpus: int = 0, processes: int = 1, jobs_per_gpu: int = 1
    ) -> None:
        self.slots = parallel
        self._num_gpus = num_gpus
        self._gpus = _visible_gpus(parallel, num_gpus, jobs_per_gpu) if num_gpus else []
        self._threads = max(1, _cores() // (parallel * processes))
        self._executor = submitit.LocalExecutor(_fresh(folder))
        self._executor.update_parameters(timeout_min=_FOREVER_MIN, gpus_per_node=num_gpus, stderr_to_stdout=True)
        self._jobs: list[tuple[submitit.Job[Any], list[int]]] = []

    def submit(self, jobs: Mapping[str, Callable[[], Any]]) -> dict[str, submitit.Job[Any]]:
        submitted = {}
        for name, job in jobs.items():
            gpus = self._idlest_gpus()
            if gpus:
                self._executor.update_parameters(visible_gpus=gpus)
            # A terminal or a scheduler sends signals to all processes, but the runner itself stops its jobs.
            with _ignoring_signals(), _threads(self._threads):
                submitted[name] = self._executor.submit(job)
            self._jobs.append((submitted[name], gpus))
        return submitted

    def _idlest_gpus(self) -> list[int]:
        self._jobs = [(job, gpus) for job, gpus in self._jobs if not job.done()]
        jobs = Counter(gpu for _, gpus in self._jobs for gpu in gpus)
        return sorted(self._gpus, key=lambda gpu: jobs[gpu])[: self._num_gpus]


class Slurm(Executor):
    """Queues jobs as a job array on a Slurm cluster.

    Args:
        folder: Folder for submitit's files and the output of the jobs, on a file system that the cluster shares.
        name: Name of the job array.
        parameters: Parameters of the jobs by submitit's names, such as `timeout_min`. Those that are empty or 0 are
            left out, so that the cluster's defaults apply.
    """

    slots = None

    def __init__(self, folder: Path, name: str, **parameters: Any) -> None:
        self._queue = folder / "queued.json"  # {name: [submitit's folder, job id]}
        try:
            self._executor = submitit.AutoExecutor(_fresh(folder), cluster="slurm", slurm_max_num_timeout=_MAX_TIMEOUTS)
        except RuntimeError as e:
            raise UserError(
                f"--executor slurm: {e} Run this command on a machine from which jobs are submitted to the cluster"
            ) from e
        given = {key: value for key, value in parameters.items() if value}
        self._executor.update_parameters(name=name, stderr_to_stdout=True, **given)

    def submit(self, jobs: Mapping[str, Callable[[], Any]]) -> dict[str, submitit.Job[Any]]:
        """Queue the jobs that no earlier run has queued, and also return those of earlier runs that are still alive."""
        queued = read_json(self._queue)
        submitted = {name: job for name in jobs if name in queued and (job := _alive(*queued[name]))}
        new = [name for name in jobs if name not in submitted]
        if not new:
            return submitted
        try:
            submitted |= zip(new, self._executor.submit_array([jobs[name] for name in new]))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as e:
            raise UserError(f"--executor slurm: sbatch refused the jobs: {e}") from e
        write_json(self._queue, queued | {name: [str(self._executor.folder), submitted[name].job_id] for name in new})
        return submitted


def _alive(folder: str, job_id: str) -> submitit.Job[Any] | None:
    """Return the job if it is still queued or running on the cluster, otherwise None."""
    job = submitit.SlurmJob(folder=folder, job_id=job_id)
    state = job.get_info(mode="force").get("State", "")
    return job if state.split(" ")[0] in _ALIVE else None


def minutes(text: str) -> int:
    """Return a time in Slurm's notation, such as "90", "1:30:00" or "2-12:00:00", as whole minutes, rounded up.

    A ValueError says that the text has another form, or that the time is 0.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d)(?::(\d\d))?)?", text)
    if found is None:
        raise ValueError(f"expected minutes or [days-]hours:minutes:seconds, found {text!r}")
    days, first, second, third = (int(part or 0) for part in found.groups())
    if found[1] is None and found[4] is None:  # minutes[:seconds]
        total = first + (second > 0)
    else:
        total = days * 24 * 60 + first * 60 + second + (third > 0)
    if total == 0:
        raise ValueError("expected a time above 0")
    return total


def _fresh(folder: Path) -> Path:
    """Return a folder for this run alone: submitit names files by process ids, which repeat after a reboot."""
    return folder / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


def _cores() -> int:
    """Return how many cores this process may keep busy: those of its affinity, or fewer by the quota of its cgroup."""
    cores = len(os.sched_getaffinity(0))
    own = _OWN_CGROUP.read_text().rpartition("::")[2].strip() if _OWN_CGROUP.is_file() else "/"
    folder = _CGROUPS / own.lstrip("/")
    for place in (folder, *folder.parents):  # the quotas of the groups around it hold, too
        limit = place / "cpu.max"
        if place.is_relative_to(_CGROUPS) and limit.is_file():
            quota, period = limit.read_text().split()
            cores = cores if quota == "max" else min(cores, int(quota) // int(period))
    return max(1, cores)


def _visible_gpus(jobs: int, gpus: int, jobs_per_gpu: int) -> list[int]:
    """Return the numbers of the visible GPUs, which jobs with `gpus` GPUs each share.

    Raises:
        UserError: they are too few, or CUDA_VISIBLE_DEVICES does not number them, as submitit needs.
    """
    import torch

    named = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    visible = len(named) or torch.cuda.device_count()
    if (wanted := max(gpus, -(-jobs * gpus // jobs_per_gpu))) > visible:
        raise UserError(
            f"--parallel and --num-gpus ask for {wanted} GPUs, but {visible} are visible; "
            "--cells-per-gpu lets cells share them"
        )
    if not all(part.isdigit() for part in named):
        raise UserError(
            "CUDA_VISIBLE_DEVICES: expected the numbers of GPUs, which are shared out among the cells, such as 0,1; "
            f"found {','.join(named)!r}"
        )
    return [int(part) for part in named] or list(range(visible))


@contextmanager
def _ignoring_signals() -> Iterator[None]:
    """Let processes that start inside ignore `STOP_SIGNALS` until they handle them, as submitit's controller does not.

    The controller is in the process group of the runner, and without it a job is lost.
    """
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that start inside compute with so many threads, unless the user has chosen a number."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
