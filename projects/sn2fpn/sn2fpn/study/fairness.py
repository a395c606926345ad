"""What differs between the variants of a study besides what is compared: from the fingerprints in `cell.json`."""

from __future__ import annotations

import json
from pathlib import Path

from .file import Cell, Study, cell_folder

__all__ = ["fairness_report"]


def fairness_report(study: Study, folder: Path) -> list[str]:
    """Lines that say what is equal in all cells of a seed, and for what is not, which variants are alike."""
    lines = []
    told: dict[tuple[str, ...], list[int]] = {}
    for seed in study.seeds:
        prints = {v.name: _fingerprint(folder, Cell(v, seed)) for v in study.variants}
        prints = {name: found for name, found in prints.items() if found}
        if len(prints) > 1:
            told.setdefault(_compare(prints), []).append(seed)
    for facts, seeds in told.items():
        lines.append(f"Seed {', '.join(map(str, seeds))}:")
        lines += [f"  {fact}" for fact in facts]
    versions = {(c["commit"], json.dumps(c["versions"], sort_keys=True)) for c in _identities(study, folder)}
    if len(versions) > 1:
        commits = sorted({commit or "unknown" for commit, _ in versions})
        lines.append(f"Cells were trained by different versions (commits {', '.join(commits)}): see their cell.json")
    return lines


def _compare(prints: dict[str, dict[str, str]]) -> tuple[str, ...]:
    equal, facts = [], []
    for part in dict.fromkeys(part for found in prints.values() for part in found):
        groups: dict[str, list[str]] = {}
        for name, found in prints.items():
            groups.setdefault(found.get(part, "none"), []).append(name)
        if len(groups) == 1:
            equal.append(part)
        else:
            facts.append(f"differs: {part} ({' | '.join(', '.join(names) for names in groups.values())})")
    if equal:
        facts.insert(0, f"equal in all variants: {', '.join(equal)}")
    return tuple(facts)


def _fingerprint(folder: Path, cell: Cell) -> dict[str, str]:
    return _identity(folder, cell).get("fingerprint", {})


def _identities(study: Study, folder: Path) -> list[dict]:
    return [found for cell in study.cells if (found := _identity(folder, cell))]


def _identity(folder: Path, cell: Cell) -> dict:
    path = cell_folder(folder, cell) / "cell.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
