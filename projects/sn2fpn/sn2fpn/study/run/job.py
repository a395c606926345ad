"""A cell as a job: how it is started, told to stop, and queued again."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from ...command_line import train_command
from ...errors import UserError
from ...locks import is_locked
from ...program import StopSignals
from ..folder import CellFolder, State
from ..spec.study import Cell, Study
from .training import run_cell

__all__ = ["CellJob"]

_NOTICE_S = 60  # Slurm's pre-emption may send SIGUSR2 within this time after SIGTERM
_POLL_S = 1.0


@dataclass
class CellJob:
    """A cell as a submitit job: calling it trains the cell, and submitit queues what `checkpoint` returns again.

    Pre-emption, time limits (SIGUSR2) and requests to stop (SIGTERM and the other `STOP_SIGNALS`) all make the trainer
    save a checkpoint, from which the next run of the job continues. Only SIGUSR2 queues the job again. When the lock on
    the file `runner` is released, because the runner was told to stop or was killed, the job saves and stops as well;
    with None, the job outlives the runner.
    """

    study_file: Path  # the `study.yaml` in the study's folder
    variant: str  # names the cell with its seed, because a later run may write a study file with other cells
    seed: int
    folder: Path  # the study's folder
    num_gpus: int = 1  # processes of the training
    runner: Path | None = None

    def __call__(self) -> State:
        study = Study.load(self.study_file, trust=True)  # the command that made the job has checked it
        cell = self.cell(study)
        arguments = study.training_arguments(cell, CellFolder(self.folder, cell).path, self.num_gpus)
        print(shlex.join([*train_command(), *arguments]))
        if self.runner is not None:
            os.setpgid(0, 0)  # the terminal's Ctrl-C then reaches the runner alone, which stops its jobs once
            threading.Thread(target=_stop_without, args=(self.runner,), daemon=True).start()
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's handler, which queues the job again
        with StopSignals() as signals:
            state = run_cell(study, cell, self.folder, self.num_gpus)
            if state is State.INTERRUPTED and self.runner is None:
                _await_notice(signals)
        if state is State.INTERRUPTED and signals.heard == signal.SIGUSR2 and callable(requeue):
            requeue(signal.SIGUSR2, None)
        return state

    def cell(self, study: Study) -> Cell:
        """Return the cell of this job; a UserError says that the study has it no more."""
        for cell in study.cells:
            if (cell.variant.name, cell.seed) == (self.variant, self.seed):
                return cell
        raise UserError(
            f"{self.study_file}: expected the cell {self.variant}/seed{self.seed}, which this job was started for, "
            "found a study without it; a later run has changed the study file"
        )

    def checkpoint(self) -> Any:
        """Return the job to queue again, which is the same job because a cell resumes by itself."""
        return submitit.helpers.DelayedSubmission(self)


def _stop_without(runner: Path) -> None:
    """Tell this process once to save and stop when nobody holds the runner's lock any more."""
    while is_locked(runner):
        time.sleep(_POLL_S)
    print("the runner has ended: saving a checkpoint and stopping", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


def _await_notice(signals: StopSignals) -> None:
    """Wait for SIGUSR2, which Slurm may send a while after SIGTERM to say that the job was pre-empted."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deadline = time.monotonic() + _NOTICE_S
    while signals.heard != signal.SIGUSR2 and time.monotonic() < deadline:
        time.sleep(_POLL_S)
