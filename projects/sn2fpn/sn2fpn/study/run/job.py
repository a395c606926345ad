"""A cell as a job: how it is started, told to stop, and queued again."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import submitit

from ..files import is_locked
from ..folder import CellFolder, State
from ..spec.study import Study
from .training import run_cell

__all__ = ["CellJob", "signal_handlers"]

_NOTICE_S = 60  # Slurm's pre-emption may send SIGUSR2 within this time after SIGTERM
_POLL_S = 1.0


@dataclass
class CellJob:
    """A cell as a submitit job: calling it trains the cell, and submitit queues what `checkpoint` returns again.

    Pre-emption, time limits (SIGUSR2) and a request to stop (SIGTERM) all make the trainer save a checkpoint, from
    which the next run of the job continues. When the lock on the file `runner` is released, because the runner was told
    to stop or was killed, the job saves and stops as well; with None, the job outlives the runner.
    """

    study_file: Path  # the `study.yaml` in the study's folder
    index: int  # position of the cell in `Study.cells`
    folder: Path  # the study's folder
    num_gpus: int = 1  # processes of the training
    runner: Path | None = None

    def __call__(self) -> State:
        study = Study.load(self.study_file, trust=True)  # the command that made the job has checked it
        cell = study.cells[self.index]
        arguments = study.training_arguments(cell, CellFolder(self.folder, cell).path, self.num_gpus)
        print(shlex.join(["python", "train_net.py", *arguments]))
        if self.runner is not None:
            os.setpgid(0, 0)  # the terminal's Ctrl-C then reaches the runner alone, which stops its jobs once
            threading.Thread(target=_stop_without, args=(self.runner,), daemon=True).start()
        notice = _Notice(signal.getsignal(signal.SIGUSR2))  # submitit's handler
        with signal_handlers({signal.SIGTERM: notice.stop, signal.SIGUSR2: notice.preempt}):
            state = run_cell(study, cell, self.folder, self.num_gpus)
            if state is State.INTERRUPTED:
                notice.requeue_if_preempted(waiting=self.runner is None)
        return state

    def checkpoint(self) -> Any:
        """Return the job to queue again, which is the same job because a cell resumes by itself."""
        return submitit.helpers.DelayedSubmission(self)


def _stop_without(runner: Path) -> None:
    """Tell this process once to save and stop when nobody holds the runner's lock any more."""
    while is_locked(runner):
        time.sleep(_POLL_S)
    print("the runner has ended: saving a checkpoint and stopping", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


class _Notice:
    """What signals have told a job; `requeue` is submitit's handler of SIGUSR2, which queues the job again."""

    def __init__(self, requeue: Any) -> None:
        self._requeue = requeue
        self._preempted: tuple[int, FrameType | None] | None = None

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM outside of training, which has its own handler: stop now, and let child processes save."""
        for child in multiprocessing.active_children():
            child.terminate()
        raise KeyboardInterrupt

    def preempt(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGUSR2: save and stop as after SIGTERM, then queue the job again."""
        self._preempted = (number, frame)
        os.kill(os.getpid(), signal.SIGTERM)

    def requeue_if_preempted(self, waiting: bool) -> None:
        """Queue the job again if SIGUSR2 asked for it; Slurm may send it a while after SIGTERM, so wait for it."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline = time.monotonic() + _NOTICE_S * waiting
        while not self._preempted and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if self._preempted and callable(self._requeue):
            self._requeue(*self._preempted)


@contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Install signal handlers inside this context and the previous ones after it."""
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
