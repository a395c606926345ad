"""Worker processes of loaders: they leave signals to the main process, and their death is reported in good order."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from ..errors import UserError
from ..program import STOP_SIGNALS

__all__ = ["GuardedLoader", "WorkerDied", "batches_of"]

_DYING_S = 1.0  # until the system reports the death of a process
_CAUSES = {
    signal.SIGKILL: "The usual cause is that the machine ran out of memory; fewer workers or smaller images need less",
    signal.SIGBUS: "The usual cause is that the shared memory (/dev/shm) is full; fewer workers need less",
}


class WorkerDied(UserError):
    """A worker process of a loader has ended before its work was done."""


class GuardedLoader:
    """A loader whose batches come from `batches_of`.

    Args:
        loader: a loader of torch.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return batches_of(self._loader)

    def __len__(self) -> int:
        return len(self._loader)


def batches_of(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of a loader whose worker processes start with the first batch.

    The workers never receive the signals that stop a program, because only the main process can decide what happens
    then. They end when the main process ends, also when it was killed.

    Raises:
        WorkerDied: a worker has ended; the message names the cause.
    """
    source, workers = _start(loader)
    while True:
        try:
            _check(workers)
            batch = next(source)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError):  # torch waits for a batch of a dead worker, or fetches one from it
            dying = wait([worker.sentinel for worker in workers], timeout=_DYING_S)
            for worker in workers:
                if worker.sentinel in dying:
                    worker.join(_DYING_S)  # its files are closed a moment before its exit code is known
            _check(workers)
            raise
        yield batch


def _check(workers: list[BaseProcess]) -> None:
    for index, worker in enumerate(workers, 1):
        if worker.exitcode:
            raise WorkerDied(_describe(index, worker, len(workers)))


def _start(loader: Iterable[Any]) -> tuple[Iterator[Any], list[BaseProcess]]:
    """Return an iterator of a loader and its worker processes, which inherit the blocked signals."""
    before, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        source = iter(loader)
        workers = [p for p in multiprocessing.active_children() if p not in before]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    workers.sort(key=lambda worker: worker.pid or 0)
    if workers:  # multiprocessing would wait for them at the end of the program, so that they are ended before
        Finalize(source, _end, (workers,), exitpriority=0)
    if workers and handler is not None and threading.current_thread() is threading.main_thread():
        # torch's handler raises an error wherever the program is; without it, the next batch raises the error
        signal.signal(signal.SIGCHLD, handler)
    return source, workers


def _describe(index: int, worker: BaseProcess, count: int) -> str:
    who = f"worker {index} of {count} of the data loader (process {worker.pid})"
    code = worker.exitcode or 0
    if code >= 0:
        return f"{who} ended with exit code {code}"
    number = signal.Signals(-code)
    return f"{who} was killed by {number.name}. {_CAUSES.get(number, 'It may have met a fault of a library')}"


def _end(workers: list[BaseProcess]) -> None:
    """End the workers that are left. multiprocessing would try SIGTERM, which is blocked."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()
