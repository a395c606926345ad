"""The state of all cells while they run: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from .file import Cell, Study, cell_folder
from .records import CellState, read_state

__all__ = ["Progress", "estimate", "states_of"]

_LINE_S = 60  # between lines about running cells, where there is no terminal
_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "waiting": "dim"}


def states_of(study: Study, folder: Path) -> dict[Cell, CellState]:
    """The state of every cell, from its files."""
    return {cell: read_state(cell_folder(folder, cell), study.metrics[0]) for cell in study.cells}


class Progress:
    """Shows states whenever `update` is given them; a context manager.

    Args:
        seconds: cell -> time that it has taken or will take, as far as known (`train_seconds` of finished ones).
        parallel: cells that run at a time.
    """

    def __init__(self, study: Study, iterations: dict[Cell, int], parallel: int) -> None:
        self._study = study
        self._iterations = iterations
        self._parallel = parallel
        self._told: dict[Cell, str] = {}
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

    def update(self, states: dict[Cell, CellState], seconds: dict[Cell, float]) -> None:
        """Show the states; `seconds` is the training time of finished cells."""
        summary = self._summary(states, seconds)
        if self._live is not None:
            self._live.update(self._table(states, summary))
            return
        changed = {cell: s for cell, s in states.items() if self._told.get(cell, "waiting") != s.state}
        for cell, state in changed.items():
            print(f"{cell.name}: {self.words(cell, state)}", flush=True)
        self._told = {cell: s.state for cell, s in states.items()}
        if changed or time.monotonic() > self._last_line + _LINE_S:
            self._last_line = time.monotonic()
            running = [f"{c.name} {self.words(c, s)}" for c, s in states.items() if s.state == "running"]
            print("; ".join([summary, *running]), flush=True)

    def words(self, cell: Cell, state: CellState) -> str:
        """What a cell's entry says: "finished 41.2", "240/540, 0:01:32 left", …"""
        at = f"{state.iteration}/{self._iterations[cell]}"
        if state.state == "finished":
            return f"finished  {self._study.metrics[0].split('/')[1]} {state.note}" if state.note else "finished"
        if state.state == "running":
            left = f", {_clock(state.eta_seconds)} left" if state.eta_seconds is not None else ""
            who = f" ({state.note})" if state.note else ""
            return f"running {at}{left}{who}"
        if state.state == "interrupted":
            return f"interrupted at {at}"
        return f"failed: {state.note}" if state.state == "failed" else state.state

    def _summary(self, states: dict[Cell, CellState], seconds: dict[Cell, float]) -> str:
        counts = Counter(s.state for s in states.values())
        parts = [f"{counts['finished']} of {len(states)} cells finished"]
        parts += [f"{counts[name]} {name}" for name in ("running", "failed", "interrupted") if counts[name]]
        left = estimate(states, seconds, self._iterations, self._parallel)
        return ", ".join(parts) + (f"; {_clock(left)} left for training" if left else "")

    def _table(self, states: dict[Cell, CellState], summary: str) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Study {self._study.name}", caption=summary)
        table.add_column("variant")
        for seed in self._study.seeds:
            table.add_column(f"seed {seed}")
        for variant in self._study.variants:
            row = []
            for seed in self._study.seeds:
                cell = Cell(variant, seed)
                state = states[cell]
                style = _STYLES[state.state]
                row.append(f"[{style}]{escape(self.words(cell, state))}[/]")
            table.add_row(variant.name, *row)
        return table


def estimate(
    states: dict[Cell, CellState], seconds: dict[Cell, float], iterations: dict[Cell, int], parallel: int
) -> float | None:
    """Seconds until all cells are trained, as far as finished and running ones tell; None: nothing tells yet.

    A waiting cell takes as long per iteration as the others of its variant or, without such, as all.
    """
    pace: dict[Any, list[float]] = {}
    for cell, state in states.items():
        spent = None
        if cell in seconds:
            spent = seconds[cell] / iterations[cell]
        elif state.state == "running" and state.eta_seconds and state.iteration < iterations[cell]:
            spent = state.eta_seconds / (iterations[cell] - state.iteration)
        if spent is not None:
            pace.setdefault(cell.variant.name, []).append(spent)
    if not pace:
        return None
    overall = fmean(fmean(values) for values in pace.values())
    left = 0.0
    for cell, state in states.items():
        if state.state not in ("finished", "failed"):
            own = fmean(pace.get(cell.variant.name, [overall]))
            left += own * max(0, iterations[cell] - state.iteration)
    return left / parallel


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
