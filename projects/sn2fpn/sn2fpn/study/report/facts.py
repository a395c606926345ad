"""What was compared, how it was run, and whether the cells were run alike."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from ..measure.results import CellResult, StudyResults
from ..spec.fingerprint import differences_by_seed
from .content import ABSENT, joined, plural

__all__ = ["Check", "cell_commands", "fingerprint_lines", "heading_facts", "run_checks"]


class Check(NamedTuple):
    """Whether the cells agree in something."""

    what: str
    equal: bool
    detail: str


def heading_facts(results: StudyResults) -> list[tuple[str, str]]:
    """Return (label, text) of the facts at the head of the report."""
    study, finished = results.study, results.finished
    iterations = [cell.result.get("iterations") for cell in finished]
    started = sorted(str(c.identity["started"]) for c in results.cells if c.identity.get("started"))
    ended = sorted(str(c.result["finished"]) for c in finished if c.result.get("finished"))
    facts = {axis: joined(variant.axes[axis] for variant in study.variants) for axis in study.axes} | {
        "baseline": results.baseline,
        "base config": study.base.name,
        "settings for all": joined(f"{key} {value}" for key, value in study.settings.items()),
        "test sets": joined(name for cell in finished for name in cell.test_sets),
        "seeds": joined(study.seeds),
        "iterations": joined(f"{n:,}" for n in iterations if isinstance(n, int)),
        "engine": joined(cell.result.get("engine") for cell in finished),
        "commit": joined(cell.identity.get("commit") for cell in finished),
        "machine": joined(cell.identity.get("host") for cell in finished),
        "versions": joined(_versions(cell) for cell in finished),
        "dates": " to ".join(dict.fromkeys(t[:16].replace("T", " ") for t in [*started[:1], *ended[-1:]])),
        "cells": f"{len(finished)} of {plural(len(results.cells), 'cell')} finished",
    }
    return [(label, text) for label, text in facts.items() if text not in ("", ABSENT)]


def fingerprint_lines(results: StudyResults) -> list[tuple[str, list[str]]]:
    """Return ("seed 1, 2", lines) that say what was equal between the variants of these seeds and what differed."""
    found = differences_by_seed({cell.cell: cell.identity for cell in results.cells})
    return [(f"seed {joined(seeds)}", lines) for seeds, lines in found]


def run_checks(results: StudyResults) -> list[Check]:
    """Check that software, commit, machine, engine and iterations are the same in all finished cells."""
    checks = []
    for what, read in _SHARED.items():
        groups: dict[str, list[str]] = {}
        for cell in results.finished:
            groups.setdefault(str(read(cell) or "unknown"), []).append(cell.cell.name)
        if groups and list(groups) != ["unknown"]:
            detail = "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())
            checks.append(Check(what, len(groups) == 1, detail if len(groups) > 1 else next(iter(groups))))
    return checks


def cell_commands(results: StudyResults) -> list[tuple[str, str]]:
    """Return (cell, command line) of the cells that were started."""
    commands = {cell.cell.name: cell.identity.get("command") for cell in results.cells}
    return [(name, shlex.join(map(str, words))) for name, words in commands.items() if isinstance(words, list)]


def _versions(cell: CellResult) -> str | None:
    versions = cell.identity.get("versions")
    return ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else versions


_SHARED: dict[str, Callable[[CellResult], Any]] = {
    "software versions": _versions,
    "commit": lambda cell: cell.identity.get("commit"),
    "machine": lambda cell: cell.identity.get("host"),
    "engine": lambda cell: cell.result.get("engine"),
    "iterations": lambda cell: cell.result.get("iterations"),
}
