"""The results of studies in the documentation are those of the archives beside them."""

from __future__ import annotations

import itertools
import json
import math
import re
import zipfile
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sn2fpn.study.archive import ENDING
from sn2fpn.study.archive.pack import opened
from sn2fpn.study.measure.results import StudyResults, load_results
from sn2fpn.study.report import curve_charts
from sn2fpn.study.report.comparison import difference, interval, limits
from sn2fpn.study.report.content import number
from sn2fpn.study.report.style import looks
from sn2fpn.study.report.writing import write_report
from sn2fpn.study.spec.study import Study

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "docs/studies"
ARCHIVES = {path.name.removesuffix(ENDING): path for path in STUDIES.glob(f"*{ENDING}")}
# The studies of each page, in the order of its tables.
PAGES = {"README.md": ["photos_main"], "docs/studies/README.md": ["photos_main", "photos_long", "photos_upsampling"]}
METRICS = {"AP": "bbox/AP", "AP50": "bbox/AP50", "AP small": "bbox/APs", "medium": "bbox/APm", "large": "bbox/APl"}


Table = dict[str, list[str]]


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """For each committed archive the rows of its table, by variant."""
    found = {}
    for name, archive in ARCHIVES.items():
        with opened(archive) as folder:
            study = load_results(folder)
            found[name] = {variant: _row(study, variant) for variant in study.variants if study.of(variant)}
    return found


def _row(study: StudyResults, name: str) -> list[str]:
    means = [interval(study, name, metric) for metric in METRICS.values()]
    scores = [number(m.mean) + (f" ± {number((m.high - m.low) / 2)}" if m.n > 1 else "") for m in means]
    gap = difference(study, name, study.baseline, study.headline)
    between = f" ({limits(gap)})" if gap.n > 1 else ""
    against = "" if name == study.baseline else f"{number(gap.mean, 1, '+')}{between}"
    costs = study.measured(name)
    return [str(len(study.of(name))), *scores, against, number(costs["gflops"], 2), f"{number(costs['latency_ms'])} ms"]


@pytest.mark.parametrize(("page", "names"), PAGES.items())
def test_tables_have_the_scores_of_the_archives(page: str, names: list[str], tables: dict[str, Table]) -> None:
    head = f"| variant | seeds | {' | '.join(METRICS)} | AP − fpn (95 %) | GFLOPs | latency |"
    found = [_rows(part) for part in (ROOT / page).read_text(encoding="utf-8").split(head)[1:]]
    assert found == [tables[name] for name in names]


def _rows(text: str) -> Table:
    """Return the rows of the table that the text begins with, after its head."""
    lines = itertools.takewhile(lambda line: line.startswith("|"), text.strip().splitlines())
    cells = [[entry.strip().replace("**", "") for entry in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


@pytest.mark.parametrize("name", ARCHIVES)
def test_reports_are_those_of_the_archives(name: str, tmp_path: Path) -> None:
    write_report(ARCHIVES[name], tmp_path, pictures=False)
    here = [json.loads((folder / "results.json").read_text()) for folder in (tmp_path, STUDIES / name)]
    assert here[0] == here[1]
    texts = [(folder / "report.md").read_text(encoding="utf-8") for folder in (tmp_path, STUDIES / name)]
    ours, theirs = (text[: text.index("## Run it again")] for text in texts)
    assert re.sub(r"\d", "", ours) == re.sub(r"\d", "", theirs)
    for a, b in zip(_numbers(ours), _numbers(theirs), strict=True):
        assert math.isclose(a, b, rel_tol=0.02, abs_tol=0.11)  # resampling may be rounded otherwise elsewhere
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        file.name for file in (STUDIES / name / "figures").iterdir()
    }


def test_the_chart_of_tried_values_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(curve_charts, "to_svg", lambda figure: drawn.append(figure) or "")
    with opened(ARCHIVES["photos_main"]) as folder:
        results = load_results(folder)
        curve_charts.tuning_plots(results, looks(results.variants, results.baseline))
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5e-05", "0.0001", "0.0002", "0.0004", "0.0008"]
    assert not axes.get_xticklabels(minor=True)


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def test_no_path_of_a_machine_is_committed() -> None:
    """A cell may have been trained in another folder than its study was saved in."""
    path = re.compile(r"--(config-file|import)\W+/")
    for archive in ARCHIVES.values():
        with zipfile.ZipFile(archive) as packed:
            assert not [name for name in packed.namelist() if path.search(packed.read(name).decode())]
    assert not [page for page in STUDIES.glob("*/report.*") if path.search(page.read_text(encoding="utf-8"))]


def test_the_learning_rates_of_the_study_of_upsampling_are_on_the_page() -> None:
    head = "| learning rate | bilinear | deconv | carafe | dysample | sni_learned |"
    text = (STUDIES / "protocol.md").read_text(encoding="utf-8").partition(head)[2]
    lines = itertools.takewhile(lambda line: line.startswith("|"), text.strip().splitlines()[1:])
    shown = {float(row[0]): row[1:] for line in lines if (row := [x.strip(" *") for x in line.strip("|").split("|")])}
    columns = head.replace(" ", "").strip("|").split("|")[1:]
    with opened(ARCHIVES["photos_upsampling"]) as folder:
        tuning, study = load_results(folder / "tuning"), Study.load(folder / "study.yaml")
        found = {
            rate: [f"{tuning.values(f'{name}-BASE_LR={rate}', 'bbox/AP')[0]:.1f}" for name in columns] for rate in shown
        }
    assert found == shown
    assert study.tuned == {variant.name: {"SOLVER.BASE_LR": 0.0002} for variant in study.variants}


@pytest.mark.parametrize("archive", sorted((STUDIES / "unfinished").glob(f"*{ENDING}")), ids=lambda path: path.name)
def test_the_page_says_how_far_an_unfinished_study_is(archive: Path) -> None:
    with opened(archive) as folder:
        parts = {"cells": load_results(folder)}
        if (folder / "tuning").is_dir():
            parts["trainings for tuning"] = load_results(folder / "tuning")
    found = [f"{len(p.finished)} of {len(p.cells)} {what}" for what, p in parts.items() if p.finished]
    page = (STUDIES / "README.md").read_text(encoding="utf-8")
    assert f"[{' and '.join(found)}](unfinished/{archive.name})" in page


def test_every_archive_has_its_report_and_its_table() -> None:
    assert set(ARCHIVES) == {path.parent.name for path in STUDIES.glob("*/report.md")}
    assert set(ARCHIVES) == set(PAGES["docs/studies/README.md"])


def test_nothing_large_or_licensed_otherwise_is_committed() -> None:
    """Photographs of COCO have licences of their own, and archives must stay small."""
    assert sum(path.stat().st_size for path in STUDIES.rglob("*") if path.is_file()) < 20 * 2**20
    assert not [path for path in STUDIES.rglob("*") if path.suffix in (".jpg", ".png")]
    assert not [page for page in STUDIES.glob("*/report.html") if "image/jpeg" in page.read_text(encoding="utf-8")]
