"""The templates' engine: names come from files, so everything is escaped, for HTML as for Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

__all__ = ["render_html", "render_markdown"]

_FOLDER = Path(__file__).parent / "templates"


def render_html(**content: Any) -> str:
    """The page, with its style and script inside."""
    environment = _environment(autoescape=True)
    inside = {
        name: Markup((_FOLDER / file).read_text(encoding="utf-8"))
        for name, file in (("style", "page.css"), ("script", "sort.js"))
    }
    return environment.get_template("report.html").render(content, **inside)


def render_markdown(**content: Any) -> str:
    """The Markdown file; figures are links to files beside it."""
    environment = _environment(autoescape=False, finalize=_markdown)
    environment.filters["link"] = lambda name: Markup(quote(name))
    environment.filters["code"] = Markup  # indented as code, where nothing has a meaning
    text = environment.get_template("report.md").render(content)
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
    """A value as text that Markdown leaves as it is; numbers and macros' output pass."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = re.sub(r"\s+", " ", value)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)
