"""The facts of the report: what was compared, whether it was run alike, and the commands that run it again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import counted
from ..archive import archive_name
from ..measure.results import CellResult, StudyResults
from ..spec.fingerprint import differences_by_seed
from ..spec.own_code import code_versions
from .content import ABSENT, joined, listed

__all__ = ["Check", "Rerun", "cell_commands", "fingerprint_lines", "heading_facts", "rerun", "run_checks"]

_OUTPUT = "output/studies"  # where `study run` writes to if nothing else is asked for


class Check(NamedTuple):
    """Whether the cells agree in something."""

    what: str
    equal: bool
    detail: str


class Rerun(NamedTuple):
    """Commands with a sentence on what they do."""

    note: str
    lines: list[str]


def heading_facts(results: StudyResults) -> list[tuple[str, str]]:
    """Return (label, text) of the facts at the head of the report; axes come first."""
    study, finished = results.study, results.finished
    iterations = [cell.result.get("iterations") for cell in finished]
    started = sorted(str(c.identity["started"]) for c in results.cells if c.identity.get("started"))
    ended = sorted(str(c.result["finished"]) for c in finished if c.result.get("finished"))
    facts = {
        "baseline": results.baseline,
        "base config": study.base.name,
        "settings for all": joined(f"{key} {value}" for key, value in study.settings.items()),
        "test sets": joined(name for cell in finished for name in cell.test_sets),
        "seeds": joined(study.all_seeds),
        "iterations": joined(f"{n:,}" for n in iterations if isinstance(n, int)),
        "engine": joined(cell.result.get("engine") for cell in finished),
        "commit": joined(cell.identity.get("commit") for cell in finished),
        "machine": joined(cell.identity.get("host") for cell in finished),
        "versions": joined(_versions(cell) for cell in finished),
        "dates": " to ".join(dict.fromkeys(t[:16].replace("T", " ") for t in [*started[:1], *ended[-1:]])),
        "cells": f"{len(finished)} of {counted(len(results.cells), 'cell')} finished",
    }
    axes = [
        (f"axis {axis}" if axis in facts else axis, joined(variant.axes[axis] for variant in study.variants))
        for axis in study.axes
    ]
    return [(label, text) for label, text in (*axes, *facts.items()) if text not in ("", ABSENT)]


def fingerprint_lines(results: StudyResults) -> list[tuple[str, list[str]]]:
    """Return ("seed 1, 2", lines) that say what was equal between the variants of these seeds and what differed."""
    found = differences_by_seed({cell.cell: cell.identity for cell in results.cells})
    return [(f"seed {joined(seeds)}", lines) for seeds, lines in found]


def run_checks(results: StudyResults) -> list[Check]:
    """Check that software, commit, machine, engine, iterations and own code are the same in all finished cells."""
    checks = []
    for what, read in _SHARED.items():
        groups: dict[str, list[str]] = {}
        for cell in results.finished:
            groups.setdefault(str(read(cell) or "unknown"), []).append(cell.cell.name)
        if groups and list(groups) != ["unknown"]:
            detail = "; ".join(f"{value}: {listed(names, 'cell')}" for value, names in groups.items())
            checks.append(Check(what, len(groups) == 1, detail if len(groups) > 1 else next(iter(groups))))
    return checks + _check_own_code(results)


def _check_own_code(results: StudyResults) -> list[Check]:
    """Check that each file of IMPORTS is the same in all finished cells that have it; [] if no cell has any."""
    versions = code_versions({cell.cell.name: cell.identity.get("imports", {}) for cell in results.finished})
    mixed = [
        f"{file} {version}: {listed(names, 'cell')}"
        for file, found in versions.items()
        for version, names in found.items()
        if len(found) > 1
    ]
    return [Check("code of IMPORTS", not mixed, "; ".join(mixed) or listed(list(versions), "file"))] if versions else []


def cell_commands(results: StudyResults) -> list[tuple[str, str]]:
    """Return (cell, command line) of the cells that were started."""
    commands = {cell.cell.name: cell.identity.get("command") for cell in results.cells}
    return [(name, shlex.join(map(str, words))) for name, words in commands.items() if isinstance(words, list)]


def rerun(results: StudyResults, source: Path) -> list[Rerun]:
    """Return the commands that write the report and train the study again.

    Args:
        results: the study.
        source: the study's folder or archive.
    """
    report = Rerun("This command only writes the report.", [_line("report", source)])
    if source.is_dir():
        name, parent = results.study.name, source.resolve().parent
        line = ["run", source / "study.yaml"]
        if parent != Path(_OUTPUT).resolve():  # source.parent would be wrong for "."
            line += ["--output", parent if source.is_absolute() else os.path.relpath(parent)]
        kept = " It keeps finished cells; delete the folder of a cell to train it again."
        return [
            Rerun(f"This command runs the whole study.{kept * (source.resolve().name == name)}", [_line(*line)]),
            report,
        ]
    kept = bool(results.absent)  # an unfinished study goes on from its archive
    folder = f"{_OUTPUT}/{results.study.name}" if kept else f"{archive_name(source)}-study"
    imports = listed([file.name for file in results.study.imports], "file")
    code = f" Before the second one, copy {imports} into the folder of study.yaml." if results.study.imports else ""
    tuned = " with the settings that were tuned" if results.study.tuned else ""
    note = (
        "These commands unpack the archive and go on with the study, on a machine that has its data sets. Finished "
        f"cells are kept; the others are trained from their start, since the archive holds no weights.{code}"
        if kept
        else "The archive holds neither weights nor pictures, so the cells can only be trained from their start, on "
        f"a machine that has its data sets. These commands unpack the study file and run it{tuned}.{code}"
    )
    unpack = shlex.join(["python", "-m", "zipfile", "-e", str(source), folder])
    return [report, Rerun(note, [unpack, _line("run", Path(folder, "study.yaml"))])]


def _line(*words: str | Path) -> str:
    return shlex.join(["python", "-m", "sn2fpn.study", *map(str, words)])


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
