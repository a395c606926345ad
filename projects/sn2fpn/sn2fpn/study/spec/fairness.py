"""Whether variants were compared on equal terms: a comparison of their fingerprints."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from ...config import get_cfg
from .variants import Cell

__all__ = ["differences", "differences_by_seed"]


def differences(fingerprints: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return lines that say what is equal in all variants of a seed, and for everything else which variants agree.

    Args:
        fingerprints: Fingerprints (see `fingerprint`) of the cells of one seed by the variants' names.
    """
    equal, lines = [], []
    sections = get_cfg()
    values_differ = False
    for key in dict.fromkeys(itertools.chain.from_iterable(fingerprints.values())):
        is_value = key.partition(".")[0] in sections  # a configuration key; all others are hashes
        groups: dict[str, list[str]] = {}
        for variant, values in fingerprints.items():
            groups.setdefault(values.get(key, "default" if is_value else "none"), []).append(variant)
        if len(groups) > 1:
            values_differ |= is_value
            named = [f"{v} in {', '.join(names)}" if is_value else ", ".join(names) for v, names in groups.items()]
            lines.append(f"{key} differs: {' | '.join(named)}")
        elif not is_value:
            equal.append(key)
    if not values_differ:
        equal.append("configuration except for the pyramid")
    return [f"equal in all {len(fingerprints)} variants: {', '.join(equal) or 'nothing'}", *lines]


def differences_by_seed(identities: Mapping[Cell, Mapping[str, Any]]) -> list[tuple[list[int], list[str]]]:
    """Return the `differences` between the variants of each seed, as [(seeds, lines), …]; equal lines are merged.

    Args:
        identities: What `CellFolder.identity` returns for each cell. Cells without a fingerprint do not count.
    """
    by_seed: dict[int, dict[str, Mapping[str, str]]] = {}
    for cell, identity in identities.items():
        if identity.get("fingerprint"):
            by_seed.setdefault(cell.seed, {})[cell.variant.name] = identity["fingerprint"]
    merged: dict[tuple[str, ...], list[int]] = {}
    for seed, fingerprints in by_seed.items():
        if len(fingerprints) > 1:
            merged.setdefault(tuple(differences(fingerprints)), []).append(seed)
    return [(seeds, list(lines)) for lines, seeds in merged.items()]
