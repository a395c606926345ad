"""Tests of the documentation site: it builds without a warning, and every link and anchor leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def _navigation(entries: object) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    values = entries.values() if isinstance(entries, dict) else entries
    return [page for value in values for page in _navigation(value)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = _navigation(yaml.safe_load(text)["nav"])
    assert len(pages) == len(set(pages))
    on_disk = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    assert on_disk == set(pages)


class _Page(HTMLParser):
    """Collects the links, the files that are loaded, the anchors and the number of tags of each kind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.tags: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {k: v or "" for k, v in attrs}
        self.anchors |= {values[k] for k in ("id", "name") if k in values}
        self.tags[tag] += 1
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("img", "script", "iframe") and "src" in values:
            self.loaded.append(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, _Page]:
    for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(module, reason="the extra `docs` is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {p: _Page(p.read_text(encoding="utf-8")) for p in folder.rglob("*.html") if p.name != "404.html"}
    assert len(pages) > 30
    return pages


@pytest.mark.slow
def test_every_link_and_anchor_leads_somewhere(site: dict[Path, _Page]) -> None:
    broken, followed = [], 0
    for path, page in site.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            if not target.is_file() or (
                parts.fragment and target in site and unquote(parts.fragment) not in site[target].anchors
            ):
                broken.append(f"{path.name}: {link}")
            followed += 1
    assert not broken
    assert followed > 1000


@pytest.mark.slow
def test_every_section_and_fenced_block_of_a_page_is_one_of_the_site(site: dict[Path, _Page]) -> None:
    """A fenced block that the site does not recognise is shown as text and may swallow the sections after it."""
    root = min(p.parent for p in site)
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        rest, blocks = re.subn(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
        html = page.relative_to(DOCS).with_suffix(".html").as_posix().replace("README.html", "index.html")
        shown = site[root / html].tags
        assert shown["h2"] >= len(re.findall(r"^## ", rest, re.MULTILINE)), page.name
        indented = len(re.findall(r"^\S.*\n\n    \S", rest, re.MULTILINE))
        assert shown["pre"] >= blocks + indented, page.name


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere_and_name_no_paths_of_this_machine(site: dict[Path, _Page]) -> None:
    for path, page in site.items():
        assert [x for x in page.loaded if urlsplit(x).scheme not in ("", "data")] == [], path
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text and "file://" not in text, path
        assert "arithmatex" not in text and not re.search(r"^\$\$|\\\(", text, re.MULTILINE), path


@pytest.mark.slow
def test_files_outside_of_the_folder_docs_are_pages(site: dict[Path, _Page]) -> None:
    """The reference holds docstrings, and pages about files hold the files."""
    names = {"/".join(p.parts[-3:]): p for p in site}
    index = min((p for p in site if p.name == "index.html"), key=lambda p: len(p.parts))
    assert "repository/CONTRIBUTING.html" in site[index].links
    assert any(name.endswith("config/study.py.html") for name in names)
    reference = index.parent / "reference"
    assert "sn2fpn.predict.TiledPredictor" in site[reference / "predict.html"].anchors
    assert "sn2fpn.pyramids.SNIFPN" in site[reference / "pyramids.html"].anchors
