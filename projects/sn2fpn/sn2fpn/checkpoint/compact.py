"""Many dotted names in few lines, for reports on what was loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["compact_names"]


def compact_names(names: Iterable[str], among: Iterable[str]) -> list[str]:
    """Write dotted names in few lines: whole modules as `a.b.*`, and equal endings merged as `a.{b,c}.*`.

    Args:
        names: the names to write.
        among: all names that exist. `a.b.*` stands for all of these that start with `a.b.`.

    Example:
        >>> compact_names(["a.b.x", "a.c.x", "a.c.y"], ["a.b.x", "a.b.y", "a.c.x", "a.c.y"])
        ['a.b.x', 'a.c.*']
    """
    split, split_all = ([name.split(".") for name in sorted(set(group))] for group in (names, among))
    return _compact(split, split_all, top=True)


def _compact(names: list[list[str]], among: list[list[str]], top: bool = False) -> list[str]:
    if len(names) == len(among) > 1 and not top:
        return ["*"]
    endings: dict[str, tuple[str, ...]] = {}
    for head in dict.fromkeys(n[0] for n in names):
        below = [n[1:] for n in names if n[0] == head and len(n) > 1]
        below_all = [n[1:] for n in among if n[0] == head and len(n) > 1]
        endings[head] = tuple(_compact(below, below_all)) if below else ("",)
    lines = []
    for ending in dict.fromkeys(endings.values()):
        heads = [head for head, e in endings.items() if e == ending]
        if len(heads) > 1:
            heads = ["{" + ",".join(sorted(heads, key=_natural)) + "}"]
        lines += [f"{heads[0]}.{e}" if e else heads[0] for e in ending]
    return lines


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
