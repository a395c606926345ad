"""Render a study's report as a Markdown file and as an HTML page.

Names come from files, so all text is escaped, in HTML and in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from .answers import Answer
from .comparison import Comparison
from .content import Section, Table
from .facts import Check, Rerun
from .style import Look

__all__ = ["Report", "render_html", "render_markdown"]

_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    name: str
    lead: str  # what was compared, as a sentence
    facts: list[tuple[str, str]]  # label and text
    absent: list[tuple[str, str]]  # cells without a result, and why they have none
    absent_note: str
    answers: list[Answer]  # to the study's questions
    summary: str  # the conclusion, as a sentence
    comparisons: list[Comparison]
    comparison_table: Table | None
    conclusion_notes: list[str]
    sections: list[Section]
    fairness_note: str
    fingerprints: list[tuple[str, list[str]]]  # seeds, and what was equal between their variants
    checks: list[Check]  # whether the cells were run alike
    reruns: list[Rerun]  # the commands that write the report and run the study again
    cell_commands: list[tuple[str, str]]  # cell, and the command that trains it again
    version: str  # of this package
    looks: Mapping[str, Look]  # how each variant is drawn


def render_html(report: Report) -> str:
    """Return the HTML page, which contains its style and its script."""
    environment = _environment(autoescape=True)
    style, script = (Markup((_FOLDER / file).read_text(encoding="utf-8")) for file in ("page.css", "sort.js"))
    return environment.get_template("report.html").render(report=report, style=style, script=script)


def render_markdown(report: Report) -> str:
    """Return the Markdown file, which links to pictures beside it."""
    environment = _environment(autoescape=False, finalize=_markdown)
    environment.filters["link"] = lambda name: Markup(quote(name))
    environment.filters["code"] = Markup  # indented code needs no escapes
    text = environment.get_template("report.md").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def _markdown(value: Any) -> Any:
    """Return text so that Markdown shows it as it is; numbers and the output of macros are not changed."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = re.sub(r"\s+", " ", value)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)
