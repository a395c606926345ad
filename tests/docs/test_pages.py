"""Tests of the pages: their Python runs, and their drawings, costs and keys are those of the modules."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import draw_pyramids
from pyramid_drawing import graph_in_drawing
from sn2fpn.config import get_cfg
from sn2fpn.layers import get_upsample
from sn2fpn.layers.upsample.kinds import _KINDS
from sn2fpn.pyramids import PYRAMIDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HINT = "no longer agrees with the code: run python tools/draw_pyramids.py and look at what changed"
DETECTRON2 = 'python title="Detectron2"'  # a form that the site reads, too

PICTURES = {**{name: (name, []) for name in PYRAMIDS}, **draw_pyramids.further_pictures()}


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def my_pyramid(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield
    sys.modules.pop("my_pyramid", None)
    for name in ("mine", "mine_per_channel"):
        PYRAMIDS.remove(name)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.stem)
def test_python_of_the_page_runs(page: Path, my_pyramid: None) -> None:
    examples = [file.read_text(encoding="utf-8") for file in (ROOT / "examples").glob("*.py")]
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        if block not in examples:  # test_examples_of_ones_own.py runs those
            exec(compile(block, str(page), "exec"), names)


@pytest.mark.detectron2
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, DETECTRON2)], ids=lambda p: p.stem)
def test_detectron2_python_of_the_page_runs(page: Path, my_pyramid: None) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    for block in blocks(page, DETECTRON2):
        exec(compile(block, str(page), "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for config in re.findall(r"--config-file ([\w./-]+)", page.read_text(encoding="utf-8")):
        assert config.startswith("output/") or (ROOT / config).is_file(), config  # a training has written the former


@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_pyramid_has_its_page_in_the_index(name: str) -> None:
    assert f"]({name}.md)" in (DOCS / "pyramids" / "README.md").read_text(encoding="utf-8")
    page = (DOCS / "pyramids" / f"{name}.md").read_text(encoding="utf-8")
    assert f"({name}.svg)" in page and f"build_sn2_{name}_backbone" in page


@pytest.mark.parametrize("picture", PICTURES)
def test_drawing_shows_the_module(picture: str) -> None:
    committed = (DOCS / "pyramids" / f"{picture}.svg").read_text(encoding="utf-8")
    assert graph_in_drawing(committed) == graph_in_drawing(draw_pyramids.drawing(*PICTURES[picture])), HINT


@pytest.mark.parametrize("name", PYRAMIDS)
def test_costs_are_those_of_the_module(name: str) -> None:
    page = (DOCS / "pyramids" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) +\| +([\d,]+) \| +([\d.]+) \|$", page, re.MULTILINE)
    assert [label for label, *_ in rows] == [label for label, *_ in draw_pyramids.page_rows(name)], HINT
    index = (DOCS / "pyramids" / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"\]\({name}\.md\) \|[^|]*\| {rows[0][1]} \| {rows[0][2]} \|", index), HINT
    for (_, parameters, _), (_, _, keys) in zip(rows, draw_pyramids.page_rows(name)):
        assert parameters == f"{sum(p.numel() for p in draw_pyramids.build(name, keys).parameters()):,}", HINT
    cost = draw_pyramids.cost(draw_pyramids.build(name, []))
    assert rows[0][2] == f"{cost.multiply_adds / 1e9:.1f}", HINT


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_keys_of_the_page_exist_and_none_is_missing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for key in re.findall(r"MODEL(?:\.[A-Z0-9_]+)+", text):
        node = get_cfg()
        for part in key.split("."):
            assert part in node, key
            node = node[part]
    own = get_cfg().MODEL.get(page.stem.upper(), {})
    assert [key for key in own if key not in text] == []


def test_the_table_of_upsamplings_is_complete_and_counts_their_parameters() -> None:
    text = (DOCS / "pyramids" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w:.]+)` \|[^|]*\| ([\d,]+) \|", text, re.MULTILINE))
    assert set(rows) == {*_KINDS, "sni:0.5"}
    for kind, parameters in rows.items():
        assert parameters == f"{sum(p.numel() for p in get_upsample(kind, 256).parameters()):,}", kind
