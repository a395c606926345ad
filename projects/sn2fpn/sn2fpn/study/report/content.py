"""What a report consists of; the two templates show these objects."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """One entry of a table.

    Attributes:
        text: What is shown.
        sort: What the column is sorted by. None comes last.
        bold: Whether this is distinguishably the best of its column.
        shade: From -1 (much worse than the baseline) to 1 (much better), the colour behind the text.
    """

    text: str
    sort: float | str | None = None
    bold: bool = False
    shade: float = 0.0


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[Entry]]


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        name: Name of its file without the ending.
        title: Title.
        svg: The plot as an SVG document.
    """

    name: str
    title: str
    svg: str

    @property
    def inline(self) -> Markup:
        """The plot as an element of an HTML page."""
        return inlined(self.svg, self.name, self.title)


class Picture(NamedTuple):
    """A picture inside an HTML page.

    Attributes:
        caption: Caption.
        source: The picture as a data URL.
        width: Width in pixels.
        height: Height in pixels.
    """

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
    """A section of the report, whose parts are shown in this order.

    Attributes:
        id: Name of the section in links.
        title: Title.
        plots: Plots.
        table: A table.
        notes: Paragraphs.
        strips: Pictures, for the HTML page.
        links: (title, path relative to the report's folder) of the same pictures, for the Markdown file.
        details: A table that the HTML page shows folded.
    """

    id: str
    title: str
    plots: Sequence[Plot] = ()
    table: Table | None = None
    notes: Sequence[str] = ()
    strips: Sequence[Strip] = ()
    links: Sequence[tuple[str, str]] = ()
    details: Table | None = None

    @property
    def has_content(self) -> bool:
        """Whether there is something besides notes."""
        return bool(self.plots or self.table or self.links)


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        name: Name of the study.
        lead: What was compared, as a sentence.
        facts: (label, text) of what the head of the report lists.
        absent: The cells without a result.
        absent_note: What their absence means.
        summary: The conclusion, as a sentence.
        comparisons: Each variant against the baseline.
        conclusion_notes: How to read the comparisons.
        sections: The numbered results and everything that is plotted.
        fairness_note: What should be equal between the variants.
        fingerprints: (seeds, lines) that say what was equal.
        checks: Whether the cells were run alike.
        study_command: Command that runs the study again.
        report_command: Command that writes the report again.
        cell_commands: (cell, command) that trains one cell again.
        version: Version of this package.
        looks: How each variant is drawn.
    """

    name: str
    lead: str
    facts: list[tuple[str, str]]
    absent: list[CellResult]
    absent_note: str
    summary: str
    comparisons: list[Comparison]
    conclusion_notes: list[str]
    sections: list[Section]
    fairness_note: str
    fingerprints: list[tuple[str, list[str]]]
    checks: list[Check]
    study_command: str
    report_command: str
    cell_commands: list[tuple[str, str]]
    version: str
    looks: Mapping[str, Look] = field(default_factory=dict)


def embed(picture: np.ndarray | Path, caption: str) -> Picture:
    """Return a picture, (H, W, 3) uint8 RGB or an image file, as a JPEG inside the page; very wide ones are resized."""
    image = Image.open(picture).convert("RGB") if isinstance(picture, Path) else Image.fromarray(picture)
    if image.width > _WIDEST_PX:
        image = image.resize((_WIDEST_PX, round(image.height * _WIDEST_PX / image.width)), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=85, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Picture(caption, source, image.width, image.height)
