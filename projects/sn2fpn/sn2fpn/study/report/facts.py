"""What was compared, how, and how fairly: from cell.json and result.json."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from ..fingerprint import differences
from ..results import CellResult, StudyResults
from .words import joined, plural

__all__ = ["Check", "fingerprint_lines", "heading_facts", "rerun_commands", "run_checks"]


class Check(NamedTuple):
    """Whether the cells agree in something."""

    what: str
    equal: bool
    detail: str


def heading_facts(results: StudyResults) -> list[tuple[str, str]]:
    """Label and text, for the head of the report."""
    study, finished = results.study, results.finished
    axes = dict.fromkeys(axis for variant in study.variants for axis in variant.axes)
    started = sorted(str(c.record["started"]) for c in results.cells if c.record.get("started"))
    ended = sorted(str(c.result["finished"]) for c in finished if c.result.get("finished"))
    facts = [(f"{axis}", joined(variant.axes.get(axis) for variant in study.variants)) for axis in axes]
    facts += [
        ("baseline", results.baseline),
        ("base config", str(study.base.name)),
        ("settings for all", joined(f"{key} {value}" for key, value in study.settings.items())),
        ("test sets", joined(name for cell in finished for name in cell.test_sets)),
        ("seeds", joined(study.seeds)),
        (
            "iterations",
            joined(
                f"{cell.result.get('iterations'):,}"
                for cell in finished
                if isinstance(cell.result.get("iterations"), int)
            ),
        ),
        ("engine", joined(cell.result.get("engine") for cell in finished)),
        ("commit", joined(cell.record.get("commit") for cell in finished)),
        ("machine", joined(cell.record.get("host") for cell in finished)),
        ("versions", joined(_versions(cell) for cell in finished)),
        ("dates", " to ".join(dict.fromkeys(_minute(t) for t in [*started[:1], *ended[-1:]]))),
        ("cells", f"{len(finished)} of {plural(len(results.cells), 'cell')} finished"),
    ]
    return [(label, text) for label, text in facts if text and text != "–"]


def fingerprint_lines(results: StudyResults) -> list[tuple[str, list[str]]]:
    """What is equal between the variants of a seed and what differs: ("seed 1, 2", lines) where seeds agree."""
    told: dict[tuple[str, ...], list[int]] = {}
    for seed in results.study.seeds:
        prints = {
            cell.variant: cell.record["fingerprint"]
            for cell in results.cells
            if cell.seed == seed and cell.record.get("fingerprint")
        }
        if len(prints) > 1:
            told.setdefault(tuple(differences(prints)), []).append(seed)
    return [(f"seed {joined(seeds)}", list(lines)) for lines, seeds in told.items()]


def run_checks(results: StudyResults) -> list[Check]:
    """Whether software, commit, machine, engine and iterations are the same in all finished cells."""
    checks = []
    for what, read in _SHARED.items():
        groups: dict[str, list[str]] = {}
        for cell in results.finished:
            groups.setdefault(str(read(cell) or "unknown"), []).append(cell.name)
        if groups and list(groups) != ["unknown"]:
            detail = "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())
            checks.append(Check(what, len(groups) == 1, detail if len(groups) > 1 else next(iter(groups))))
    return checks


def rerun_commands(results: StudyResults) -> list[tuple[str, str]]:
    """(cell, its command line) of the cells that were started."""
    return [
        (cell.name, shlex.join(map(str, command)))
        for cell in results.cells
        if (command := cell.record.get("command")) and isinstance(command, list)
    ]


def _versions(cell: CellResult) -> str | None:
    versions = cell.record.get("versions")
    return ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else versions


_SHARED: dict[str, Callable[[CellResult], Any]] = {
    "software versions": _versions,
    "commit": lambda cell: cell.record.get("commit"),
    "machine": lambda cell: cell.record.get("host"),
    "engine": lambda cell: cell.result.get("engine"),
    "iterations": lambda cell: cell.result.get("iterations"),
}


def _minute(time: str) -> str:
    """An ISO time without seconds."""
    return time[:16].replace("T", " ")
