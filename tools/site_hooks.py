"""Hooks of the documentation site, see mkdocs.yml.

The pages of docs/ also link to files of the repository outside of docs/, as they must to be readable there. On the site
these files become pages of their own. Formulas become MathML, so that the site needs no script from elsewhere.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`(?!\])", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file outside of docs/ that a page links to, and for those that these link to."""
    rest = [DOCS / f.src_uri for f in files.documentation_pages()]
    seen: set[Path] = set()
    while rest:
        origin = rest.pop()
        for match in _LINK.finditer(_without_code(_markdown(origin))):
            target = _target(match["path"], origin)
            if target is not None and not target.is_relative_to(DOCS) and target not in seen:
                seen.add(target)
                rest.append(target)
                content, uri = _markdown(target), _uri(target)
                files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files outside of docs/ lead to their pages."""
    origin = _origin(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        target = _target(match["path"], origin)
        if target is None or (target.is_relative_to(DOCS) and origin.is_relative_to(DOCS)):
            return match[0]
        link = os.path.relpath(_uri(target), Path(page.file.src_uri).parent)
        return f"[{match['text']}]({link}{match['anchor'] or ''})"

    return _LINK.sub(replaced, markdown)


def on_page_content(html_text: str, **_: Any) -> str:
    """Turn formulas into MathML."""
    return _FORMULA.sub(
        lambda m: convert(html.unescape(m["tex"]), display="inline" if m["tag"] == "span" else "block"), html_text
    )


def _markdown(file: Path) -> str:
    """Return a file as the text of a page."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    return f"# {file.relative_to(ROOT)}\n\n````{_LANGUAGES.get(file.suffix, '')}\n{text}````\n"


def _without_code(text: str) -> str:
    return _CODE.sub("", text)


def _target(link: str, origin: Path) -> Path | None:
    """Return the file of the repository that a link leads to, or None if there is none."""
    target = Path(os.path.normpath(origin.parent / link))
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _uri(target: Path) -> str:
    """Return the page of a file."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    relative = target.relative_to(ROOT).as_posix()
    return f"repository/{relative.removesuffix('.md')}.md"


def _origin(uri: str) -> Path:
    """Return the file that a page was made from."""
    if not uri.startswith("repository/"):
        return DOCS / uri
    whole = ROOT / uri.removeprefix("repository/")
    return whole if whole.exists() else whole.with_name(whole.name.removesuffix(".md"))
