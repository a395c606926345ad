"""The progress of all cells while they run: a live table on a terminal, lines of text elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from statistics import fmean
from typing import Any

from ..folder import State, Status
from ..spec.study import Cell, Study

__all__ = ["Progress", "estimate"]

_LINE_S = 60  # between lines about running cells
_STYLES = {
    State.FINISHED: "green",
    State.RUNNING: "cyan",
    State.FAILED: "red",
    State.INTERRUPTED: "yellow",
    State.WAITING: "dim",
}


class Progress:
    """A context manager that shows the status of all cells whenever `update` is called.

    Args:
        study: The study.
        iterations: Number of training iterations of each cell.
        parallel: Number of cells that run at a time.
    """

    def __init__(self, study: Study, iterations: Mapping[Cell, int], parallel: int) -> None:
        self._study = study
        self._iterations = iterations
        self._parallel = parallel
        self._shown: dict[Cell, State] = {}
        self._last_line = 0.0
        self._live: Any = None

    def __enter__(self) -> Progress:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(refresh_per_second=1)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, statuses: Mapping[Cell, Status]) -> None:
        """Show the statuses."""
        summary = self._summary(statuses)
        if self._live is not None:
            self._live.update(self._table(statuses, summary))
            return
        changed = {cell: s for cell, s in statuses.items() if self._shown.get(cell, State.WAITING) is not s.state}
        for cell, status in changed.items():
            print(f"{cell.name}: {self._words(cell, status)}", flush=True)
        self._shown = {cell: s.state for cell, s in statuses.items()}
        if changed or time.monotonic() > self._last_line + _LINE_S:
            self._last_line = time.monotonic()
            running = [f"{c.name} {self._words(c, s)}" for c, s in statuses.items() if s.state is State.RUNNING]
            print("; ".join([summary, *running]), flush=True)

    def _words(self, cell: Cell, status: Status) -> str:
        """Return for example "finished  AP 41.2" or "running 240/540, 0:01:32 left"."""
        at = f"{status.iteration}/{self._iterations[cell]}"
        if status.state is State.FINISHED and status.note:
            return f"finished  {self._study.metrics[0].split('/')[1]} {status.note}"
        if status.state is State.RUNNING:
            left = f", {_clock(status.eta_seconds)} left" if status.eta_seconds is not None else ""
            return f"running {at}{left}" + (f" ({status.note})" if status.note else "")
        if status.state is State.INTERRUPTED:
            return f"interrupted at {at}"
        return f"failed: {status.note}" if status.state is State.FAILED else str(status.state)

    def _summary(self, statuses: Mapping[Cell, Status]) -> str:
        counts = Counter(s.state for s in statuses.values())
        parts = [f"{counts[State.FINISHED]} of {len(statuses)} cells finished"]
        parts += [f"{counts[s]} {s}" for s in (State.RUNNING, State.FAILED, State.INTERRUPTED) if counts[s]]
        left = estimate(statuses, self._iterations, self._parallel)
        return ", ".join(parts) + (f"; {_clock(left)} of training left" if left else "")

    def _table(self, statuses: Mapping[Cell, Status], summary: str) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Study {self._study.name}", caption=summary)
        table.add_column("variant")
        for seed in self._study.all_seeds:
            table.add_column(f"seed {seed}")
        for variant in self._study.variants:
            cells = [Cell(variant, seed) for seed in self._study.all_seeds]
            known = [(cell, statuses[cell]) if cell in statuses else None for cell in cells]
            texts = [f"[{_STYLES[at[1].state]}]{escape(self._words(*at))}[/]" if at else "" for at in known]
            table.add_row(variant.name, *texts)
        return table


def estimate(statuses: Mapping[Cell, Status], iterations: Mapping[Cell, int], parallel: int) -> float | None:
    """Return the seconds until all cells are trained, or None while no cell tells its pace.

    A waiting cell is expected to take as long per iteration as the other cells of its variant, or as all cells where
    its variant has no other cell with a known pace. At the end, the time is that of the slowest cell.
    """
    pace: dict[str, list[float]] = {}
    for cell, status in statuses.items():
        seconds, steps = status.train_seconds, iterations[cell]
        if status.state is State.RUNNING:
            seconds, steps = status.eta_seconds, iterations[cell] - status.iteration
        if seconds and steps > 0:
            pace.setdefault(cell.variant.name, []).append(seconds / steps)
    if not pace:
        return None
    overall = fmean(fmean(values) for values in pace.values())
    left = [
        fmean(pace.get(cell.variant.name, [overall])) * max(0, iterations[cell] - status.iteration)
        for cell, status in statuses.items()
        if status.state not in (State.FINISHED, State.FAILED)
    ]
    return max(sum(left) / parallel, max(left, default=0.0))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
