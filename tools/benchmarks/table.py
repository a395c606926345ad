"""Tables of results, which are printed or written to a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

__all__ = ["NOISY", "Table", "groups", "mark"]

NOISY = "†"
_NOTE = f"{NOISY} Other processes used the cores meanwhile, so that this figure is unreliable."


def mark(text: str, row: dict[str, Any]) -> str:
    """Mark the text of a figure that was measured while other processes used the cores."""
    return text if row["reliable"] else f"{text} {NOISY}"


def groups(rows: Sequence[dict[str, Any]], *names: str) -> list[list[dict[str, Any]]]:
    """Return lists of the rows that agree in the named values, in the order of the first row of each list."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str([row[name] for name in names]), []).append(row)
    return list(found.values())


@dataclass
class Table:
    """A table with a title in plain words.

    Attributes:
        title: what the table shows.
        headers: the titles of the columns.
        rows: the cells, as texts.
        notes: sentences below the table.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: list[str] = field(default_factory=list)

    def text(self, markdown: bool) -> str:
        """Return the table, in Markdown or for a console."""
        style = "pipe" if markdown else "simple"
        align = ("left", *("right" for _ in self.headers[1:]))
        body = tabulate(self.rows, self.headers, tablefmt=style, disable_numparse=True, colalign=align)
        noisy = [_NOTE] if any(NOISY in cell for row in self.rows for cell in row) else []
        return "\n\n".join([f"**{self.title}**" if markdown else self.title, body, *self.notes, *noisy])
