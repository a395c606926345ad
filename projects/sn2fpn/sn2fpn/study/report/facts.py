"""What was compared, how, and how fairly: from cell.json and result.json."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..results import CellResult, StudyResults
from .words import joined, plural

__all__ = ["Check", "fairness", "heading_facts", "rerun_commands"]


class Check(NamedTuple):
    """Whether something is equal where it should be."""

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
        ("base configuration", str(study.base.name)),
        ("settings for all", joined(f"{key} {value}" for key, value in study.settings.items())),
        ("test sets", joined(name for cell in finished for name in cell.test_sets)),
        ("seeds", joined(study.seeds)),
        ("iterations", joined(f"{cell.result.get('iterations'):,}" for cell in finished
                              if isinstance(cell.result.get("iterations"), int))),
        ("engine", joined(cell.result.get("engine") for cell in finished)),
        ("commit", joined(cell.record.get("commit") for cell in finished)),
        ("machine", joined(cell.record.get("host") for cell in finished)),
        ("versions", joined(_versions(cell) for cell in finished)),
        ("dates", " to ".join(dict.fromkeys(_minute(t) for t in [*started[:1], *ended[-1:]]))),
        ("cells", f"{len(finished)} of {plural(len(results.cells), 'cell')} finished"),
    ]
    return [(label, text) for label, text in facts if text and text != "–"]


def fairness(results: StudyResults) -> list[Check]:
    """What is equal between the variants for each seed, and what differs and where.

    Fingerprints are compared between the finished cells of a seed; software, commit, machine, engine and iterations
    between all finished cells.
    """
    cells = results.finished
    keys = list(dict.fromkeys(key for cell in cells for key in cell.record.get("fingerprint", {})))
    checks = [_per_seed(cells, key) for key in keys]
    for what, read in _SHARED.items():
        groups = _groups(cells, read, lambda cell: cell.name)
        if groups and list(groups) != [None]:
            checks.append(Check(what, len(groups) == 1, _listed(groups) if len(groups) > 1 else str(next(iter(groups)))))
    return checks


def rerun_commands(results: StudyResults) -> list[tuple[str, str]]:
    """(cell, its command line) of the cells that were started."""
    return [(cell.name, shlex.join(map(str, command))) for cell in results.cells
            if (command := cell.record.get("command")) and isinstance(command, list)]


def _versions(cell: CellResult) -> str | None:
    versions = cell.record.get("versions")
    return " ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else versions


_SHARED: dict[str, Callable[[CellResult], Any]] = {
    "software versions": _versions,
    "commit": lambda cell: cell.record.get("commit"),
    "machine": lambda cell: cell.record.get("host"),
    "engine": lambda cell: cell.result.get("engine"),
    "iterations": lambda cell: cell.result.get("iterations"),
}


def _per_seed(cells: list[CellResult], key: str) -> Check:
    """One part of the fingerprints; variants that agree stand together: "fpn, sni | ihp"."""
    splits: dict[str, list[int]] = {}  # how the variants fall apart -> seeds
    compared = 0
    for seed in dict.fromkeys(cell.seed for cell in cells):
        groups = _groups([c for c in cells if c.seed == seed], lambda cell: cell.record.get("fingerprint", {}).get(key),
                         lambda cell: cell.variant)
        compared += sum(map(len, groups.values())) > 1
        if len(groups) > 1:
            splits.setdefault(" | ".join(", ".join(names) for names in groups.values()), []).append(seed)
    if not splits:
        return Check(key, True, f"for all variants, {plural(compared, 'seed')}" if compared else "one variant only")
    return Check(key, False, "; ".join(f"{split} (seeds {', '.join(map(str, seeds))})"
                                       for split, seeds in splits.items()))


def _groups(
    cells: Iterable[CellResult], read: Callable[[CellResult], Any], name: Callable[[CellResult], str]
) -> dict[Any, list[str]]:  # fmt: skip
    """value -> names of the cells that have it."""
    groups: dict[Any, list[str]] = {}
    for cell in cells:
        value = read(cell)
        groups.setdefault(value if value is None else str(value), []).append(name(cell))
    return groups


def _listed(groups: dict[Any, list[str]]) -> str:
    return "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())


def _minute(time: str) -> str:
    """An ISO time without seconds."""
    return time[:16].replace("T", " ")
