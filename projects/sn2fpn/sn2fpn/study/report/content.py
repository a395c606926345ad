"""What a report consists of; the two templates show these objects."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from ..measure.results import CellResult
from .comparison import Comparison
from .facts import Check
from .style import Look, inlined

__all__ = ["Entry", "Picture", "Plot", "Report", "Section", "Strip", "Table", "embed"]

_WIDEST_PX = 1600


class Entry(NamedTuple):
    """One entry of a table."""

    text: str
    sort: float | str | None = None  # what the column is sorted by; None comes last
    bold: bool = False  # whether this is distinguishably the best of its column
    shade: float = 0.0  # from -1 (much worse than the baseline) to 1 (much better), the colour behind the text


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[Entry]]


@dataclass(frozen=True)
class Plot:
    """A plot as an SVG document; its name is that of its file without the ending."""

    name: str
    title: str
    svg: str

    @property
    def inline(self) -> Markup:
        """The plot as an element of an HTML page."""
        return inlined(self.svg, self.name, self.title)


class Picture(NamedTuple):
    """A picture inside an HTML page, as a data URL; its size is in pixels."""

    caption: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """Pictures side by side under a title."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Section:
    """A section of the report, whose parts are shown in this order."""

    id: str  # its name in links
    title: str
    plots: Sequence[Plot] = ()
    table: Table | None = None
    notes: Sequence[str] = ()  # paragraphs
    strips: Sequence[Strip] = ()  # pictures, for the HTML page
    links: Sequence[tuple[str, str]] = ()  # (title, path from the report's folder) of them, for the Markdown file
    details: Table | None = None  # a table that the HTML page shows folded

    @property
    def has_content(self) -> bool:
        """Whether there is something besides notes."""
        return bool(self.plots or self.table or self.links)


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    name: str
    lead: str  # what was compared, as a sentence
    facts: list[tuple[str, str]]  # label and text
    absent: list[CellResult]  # the cells without a result
    absent_note: str
    summary: str  # the conclusion, as a sentence
    comparisons: list[Comparison]
    conclusion_notes: list[str]
    sections: list[Section]
    fairness_note: str
    fingerprints: list[tuple[str, list[str]]]  # seeds, and what was equal between their variants
    checks: list[Check]  # whether the cells were run alike
    study_command: str  # runs the study again
    report_command: str  # writes the report again
    cell_commands: list[tuple[str, str]]  # cell, and the command that trains it again
    version: str  # of this package
    looks: Mapping[str, Look]  # how each variant is drawn


def embed(picture: np.ndarray | Path, caption: str) -> Picture:
    """Return a picture, (H, W, 3) uint8 RGB or an image file, as a JPEG inside the page; very wide ones are resized."""
    image = Image.open(picture).convert("RGB") if isinstance(picture, Path) else Image.fromarray(picture)
    if image.width > _WIDEST_PX:
        image = image.resize((_WIDEST_PX, round(image.height * _WIDEST_PX / image.width)), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=85, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Picture(caption, source, image.width, image.height)
