"""What a report consists of: numbers, tables, plots, pictures and sections."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from ...errors import counted
from .style import inlined

__all__ = ["ABSENT", "Entry", "Picture", "Plot", "Section", "Strip", "Table", "embed", "joined", "listed", "number"]

ABSENT = "–"
_WIDEST_PX = 1600


def number(value: float | None, digits: int = 1, sign: str = "") -> str:
    """Return a number with thousands separators and a true minus sign, or a dash where there is no value.

    With the sign "+", numbers above zero have a plus sign.
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:{sign},.{digits}f}"
    if not any(digit in "123456789" for digit in text):
        text = text.lstrip("+-")  # avoids "-0.0"
    return text.replace("-", "−")


def listed(names: Sequence[str], thing: str = "variant", most: int = 5) -> str:
    """Return names as in a sentence, for example "a, b and c", or their number if there are many."""
    if len(names) > most:
        return counted(len(names), thing)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def joined(values: Iterable[object]) -> str:
    """Return the distinct values in their order, separated by commas, or a dash if there is none."""
    return ", ".join(dict.fromkeys(str(v) for v in values if v not in (None, ""))) or ABSENT


class Entry(NamedTuple):
    """One entry of a table."""

    text: str
    sort: float | str | None = None  # what the column is sorted by; None comes last
    bold: bool = False  # whether this is distinguishably the best of its column
    shade: float = 0.0  # from -1 (much worse than the baseline) to 1 (much better), the strength of an arrow


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
    def id(self) -> str:
        """The name as a part of ids in an HTML page; it may have the name of a class, with any characters."""
        return re.sub(r"\W", "_", self.name)

    @property
    def inline(self) -> Markup:
        """The plot as an element of an HTML page."""
        return inlined(self.svg, self.id, self.title)


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
    warnings: Sequence[str] = ()  # paragraphs that stand above everything else
    switch: bool = False  # whether the HTML page shows one plot at a time

    @property
    def has_content(self) -> bool:
        """Whether there is something besides notes."""
        return bool(self.plots or self.table or self.links)


def embed(picture: np.ndarray | Path, caption: str) -> Picture:
    """Return a picture, (H, W, 3) uint8 RGB or an image file, as a JPEG inside the page; very wide ones are resized."""
    image = Image.open(picture).convert("RGB") if isinstance(picture, Path) else Image.fromarray(picture)
    if image.width > _WIDEST_PX:
        image = image.resize((_WIDEST_PX, round(image.height * _WIDEST_PX / image.width)), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=85, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Picture(caption, source, image.width, image.height)
