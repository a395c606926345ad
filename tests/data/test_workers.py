"""Tests of the loaders' worker processes: signals do not reach them, and their death is one message."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest

from sn2fpn.data import build_train_loader
from sn2fpn.data.workers import WorkerDied
from sn2fpn.program import STOP_SIGNALS


def test_workers_hear_no_signal_and_their_death_is_named(shapes_cfg: Callable) -> None:
    batches = iter(build_train_loader(shapes_cfg("DATALOADER.NUM_WORKERS", 2)))
    before = signal.getsignal(signal.SIGCHLD)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(STOP_SIGNALS)
    workers = sorted(multiprocessing.active_children(), key=lambda worker: worker.pid)
    for worker in workers:
        for number in STOP_SIGNALS:
            os.kill(worker.pid, number)
    for _ in range(8):
        next(batches)
    assert all(worker.is_alive() for worker in workers)
    workers[1].kill()
    time.sleep(0.2)  # no error here, where a program may be in the middle of a step
    words = rf"^worker 2 of 2 of the data loader \(process {workers[1].pid}\) was killed by SIGKILL\. .* memory"
    with pytest.raises(WorkerDied, match=words):
        for _ in range(8):
            next(batches)
    del batches
    workers[0].join(10)
    assert workers[0].exitcode is not None
