"""The runner starts cells, watches them and starts the next ones until nothing is left to do."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit

from ...errors import counted
from ...locks import locked
from ...program import StopSignals
from ..folder import CellFolder, State, Status
from ..spec.study import Cell, Study
from .executor import Executor, Local
from .job import CellJob
from .progress import Progress

__all__ = ["Runner"]

_POLL_S = 1.0
_TAIL_LINES = 15


class Runner:
    """Trains cells through an executor.

    The file `jobs/runner-<host>-<pid>.lock` is locked while the runner lives. When it is released, after Ctrl-C or
    another signal or because the runner was killed, local jobs save a checkpoint and stop. A cell that another process
    trains is left to that process, and is taken over if the process ends without a result.

    Args:
        study: The study.
        folder: The study's folder, which holds `study.yaml`.
        executor: Starts the jobs.
        num_gpus: Number of processes of each cell.
    """

    def __init__(self, study: Study, folder: Path, executor: Executor, num_gpus: int = 1) -> None:
        self.study = study
        self.folder = folder
        self.executor = executor
        self.num_gpus = num_gpus
        self.interrupted = 0  # the number of the signal that has ended the run early
        self._lock = folder / "jobs" / f"runner-{socket.gethostname()}-{os.getpid()}.lock"
        self._jobs: dict[Cell, submitit.Job[Any]] = {}

    def run(self, cells: Sequence[Cell], retry_failed: bool = True) -> dict[Cell, Status]:
        """Train every given cell that is not finished, and return the status of all cells of the study.

        A second signal raises `Interrupted`. The jobs go on saving, and stop by themselves.
        """
        statuses = self._statuses()
        skipped = {State.FINISHED} if retry_failed else {State.FINISHED, State.FAILED}
        waiting = [cell for cell in cells if statuses[cell].state not in skipped]
        iterations = {c: self.study.config(c.variant, c.seed).SOLVER.MAX_ITER for c in self.study.cells}
        progress = Progress(self.study, iterations, self.executor.slots or max(1, len(waiting)))
        with ExitStack() as alive, progress, StopSignals(patient=True) as signals:
            alive.enter_context(locked(self._lock))
            alive.callback(self._lock.unlink, missing_ok=True)
            while True:
                self._collect()
                statuses = self._statuses()
                progress.update(statuses)
                waiting = [c for c in waiting if c not in self._jobs and statuses[c].state is not State.FINISHED]
                if signals.heard:
                    self._announce_end(signals.heard)
                    alive.close()  # tells local jobs to save and stop
                    if not self._jobs or not isinstance(self.executor, Local):
                        break
                elif not waiting and not self._jobs:
                    break
                else:
                    waiting = self._start(waiting, statuses)
                time.sleep(_POLL_S)
        return self._statuses()

    def _statuses(self) -> dict[Cell, Status]:
        """Return the status of every cell; a job that has just started needs seconds until it holds its cell's lock."""
        found = {cell: CellFolder(self.folder, cell).status(self.study.metrics[0]) for cell in self.study.cells}
        starting = {
            cell: replace(status, state=State.RUNNING, note="starting")
            for cell, status in found.items()
            if cell in self._jobs and status.state not in (State.RUNNING, State.FINISHED)
        }
        return found | starting

    def _start(self, waiting: list[Cell], statuses: dict[Cell, Status]) -> list[Cell]:
        """Start as many cells as may run, except those that others run, and return the cells that still wait."""
        ready = [cell for cell in waiting if statuses[cell].state is not State.RUNNING]
        slots = len(ready) if self.executor.slots is None else self.executor.slots - len(self._jobs)
        chosen = ready[: max(0, slots)]
        if not chosen:
            return waiting
        runner = self._lock if isinstance(self.executor, Local) else None
        file, folder = self.folder / "study.yaml", self.folder
        jobs = {c.name: CellJob(file, c.variant.name, c.seed, folder, self.num_gpus, runner) for c in chosen}
        submitted = self.executor.submit(jobs)
        self._jobs |= {cell: submitted[cell.name] for cell in chosen}
        return [cell for cell in waiting if cell not in self._jobs]

    def _collect(self) -> None:
        """Forget jobs that have ended, and write down the failure of those that died without doing so."""
        for cell in [cell for cell, job in self._jobs.items() if job.done()]:
            job, place = self._jobs.pop(cell), CellFolder(self.folder, cell)
            if job.paths.result_pickle.exists():
                error = job.exception()
                if error is not None:
                    place.save_failure(str(error))
            elif not place.is_finished:
                place.save_failure(f"the process ended without a reason (killed? out of memory?): {_end_of(job)}")

    def _announce_end(self, number: int) -> None:
        if self.interrupted:
            return
        self.interrupted = number
        what = "waiting for them to save" if isinstance(self.executor, Local) else "they continue on the cluster"
        print(f"interrupted: {counted(len(self._jobs), 'cell is', 'cells are')} running, {what}", flush=True)


def _end_of(job: submitit.Job[Any]) -> str:
    path = job.paths.stdout
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return f"{path} ends with\n" + "\n".join(lines[-_TAIL_LINES:])
