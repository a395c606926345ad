"""Start cells, watch them, start the next ones, until there is nothing left to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import submitit

from .cells import CellJob, write_failure
from .executor import Executor, Local
from .file import Cell, Study, cell_folder
from .locks import locked
from .progress import Progress, states_of
from .records import CellState

__all__ = ["Runner"]

_POLL_S = 1.0
_TAIL_LINES = 15


class Runner:
    """Trains cells through an executor.

    Its file `jobs/runner-<host>-<pid>.lock` is locked while it lives. Local jobs save and stop when it no longer is:
    after Ctrl-C or SIGTERM, but also when the runner was killed. A cell that another process trains is left to it,
    and taken over if that process ends without a result.

    Args:
        folder: of the study; holds `study.yaml`.
        num_gpus: processes of each cell.
    """

    def __init__(self, study: Study, folder: Path, executor: Executor, num_gpus: int = 1) -> None:
        self.study = study
        self.folder = folder
        self.executor = executor
        self.num_gpus = num_gpus
        self.interrupted = False
        self._lock = folder / "jobs" / f"runner-{socket.gethostname()}-{os.getpid()}.lock"
        self._jobs: dict[Cell, submitit.Job[Any]] = {}

    def run(self, cells: Sequence[Cell], retry_failed: bool = True) -> dict[Cell, CellState]:
        """Train what is not finished; returns the states of all cells of the study in the end.

        Raises:
            KeyboardInterrupt: a second Ctrl-C or SIGTERM; jobs go on saving and stop by themselves.
        """
        states = states_of(self.study, self.folder)
        skipped = ("finished",) if retry_failed else ("finished", "failed")
        waiting = [cell for cell in cells if states[cell].state not in skipped]
        iterations = {c: self.study.config(c.variant, c.seed).SOLVER.MAX_ITER for c in self.study.cells}
        progress = Progress(self.study, iterations, self.executor.slots or max(1, len(waiting)))
        with ExitStack() as alive, progress, self._signals():
            alive.enter_context(locked(self._lock))
            alive.callback(self._lock.unlink, missing_ok=True)
            while True:
                self._collect()
                states = self._shown(states_of(self.study, self.folder))
                progress.update(states, _train_seconds(self.folder, states))
                waiting = [c for c in waiting if c not in self._jobs and states[c].state != "finished"]
                if self.interrupted:
                    alive.close()  # tells local jobs to save and stop
                    if not self._jobs or not isinstance(self.executor, Local):
                        break
                elif not waiting and not self._jobs:
                    break
                else:
                    waiting = self._start(waiting, states)
                time.sleep(_POLL_S)
        return states_of(self.study, self.folder)

    def _start(self, waiting: list[Cell], states: dict[Cell, CellState]) -> list[Cell]:
        """Start as many cells as may run, and that nobody else runs; returns those that still wait."""
        ready = [cell for cell in waiting if states[cell].state != "running"]
        slots = len(ready) if self.executor.slots is None else self.executor.slots - len(self._jobs)
        chosen = ready[: max(0, slots)]
        if not chosen:
            return waiting
        runner = self._lock if isinstance(self.executor, Local) else None
        order = {cell: i for i, cell in enumerate(self.study.cells)}
        jobs = {
            cell.name: CellJob(self.folder / "study.yaml", order[cell], self.folder, self.num_gpus, runner)
            for cell in chosen
        }
        submitted = self.executor.submit(jobs)
        self._jobs |= {cell: submitted[cell.name] for cell in chosen}
        return [cell for cell in waiting if cell not in self._jobs]

    def _collect(self) -> None:
        """Take leave of jobs that have ended; one that died without a word gets a failure.txt."""
        for cell in [cell for cell, job in self._jobs.items() if job.done()]:
            job = self._jobs.pop(cell)
            out = cell_folder(self.folder, cell)
            if job.paths.result_pickle.exists():
                error = job.exception()
                if error is not None:
                    write_failure(out, str(error))
            elif not (out / "result.json").is_file():
                write_failure(out, f"its process ended without saying why (killed? out of memory?): {_end_of(job)}")

    def _shown(self, states: dict[Cell, CellState]) -> dict[Cell, CellState]:
        """A job that was started needs some seconds until it holds its cell's lock."""
        own = {
            cell: replace(s, state="running", note="starting")
            for cell, s in states.items()
            if cell in self._jobs and s.state not in ("running", "finished")
        }
        return states | own

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the loop in good order, the second at once."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            where = "waiting for them to save" if isinstance(self.executor, Local) else "they go on on the cluster"
            print(f"interrupted: {len(self._jobs)} cells are running, {where}", flush=True)

        previous = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _end_of(job: submitit.Job[Any]) -> str:
    path = job.paths.stdout
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return f"{path} ends with\n" + "\n".join(lines[-_TAIL_LINES:])


def _train_seconds(folder: Path, states: dict[Cell, CellState]) -> dict[Cell, float]:
    return {
        cell: json.loads((cell_folder(folder, cell) / "result.json").read_text(encoding="utf-8"))["train_seconds"]
        for cell, state in states.items()
        if state.state == "finished"
    }
