"""The charts of a report on many variants: each can be told from the others, and the figures grow with their number."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import fabricate
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from sn2fpn.study.measure.results import load_results
from sn2fpn.study.report import charts, curve_charts, error_section
from sn2fpn.study.report.samples import open_test_set
from sn2fpn.study.report.style import Look, looks
from sn2fpn.study.report.tables import class_differences

_FAMILIES = {"D": "s", "v": "^", ">": "^", "X": "P"}  # shapes that differ from another one by a rotation only


def test_twenty_variants_have_looks_that_differ() -> None:
    names = [f"v{i}" for i in range(20)]
    style = looks(names, "v3")
    assert style["v3"] == Look("#7a7a7a", "o", "-")
    pairs = {(look.color, look.marker) for look in style.values()}
    assert len(pairs) == 20 and len({look.mark for look in style.values()}) == 20
    for a, b in itertools.combinations(style.values(), 2):
        if a.color == b.color:
            assert a.dash != b.dash
            assert _FAMILIES.get(a.marker, a.marker) != _FAMILIES.get(b.marker, b.marker)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 20 variants, with a cell each and the time of a curve."""
    variants = {f"variant_{i:02}": 0.02 + 0.01 * i for i in range(20)}
    return fabricate(tmp_path_factory.mktemp("many") / "twenty", variants, seeds=(1,))


def _figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Return all figures of a report as they are when they are written."""
    drawn: list[Figure] = []
    for module in (charts, curve_charts, error_section):
        monkeypatch.setattr(module, "to_svg", lambda figure: drawn.append(figure) or "")
    results = load_results(folder)
    style = looks(results.variants, results.baseline)
    plots = [
        *charts.cost_plots(results, style),
        *charts.size_plots(results, style),
        *charts.class_plots(results, style, class_differences(results)),
        *curve_charts.curve_plots(results, style),
        *error_section.error_section(results, open_test_set(results), style).plots,
    ]
    return {plot.name: figure for plot, figure in zip(plots, drawn, strict=True)}


def test_costs_that_are_alike_have_no_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fabricate(tmp_path / "alike", {"fpn": 0.1, "sni": 0.2}, seeds=(1,))
    costs = json.loads((folder / "costs.json").read_text())
    (folder / "costs.json").write_text(json.dumps({"fpn": costs["fpn"], "sni": costs["fpn"]}))
    names = [name for name in _figures(folder, monkeypatch) if "against" in name]
    assert names == ["AP_against_latency"]


def test_every_chart_shows_every_variant_in_its_look(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = load_results(many)
    style = looks(results.variants, results.baseline)
    figures = _figures(many, monkeypatch)
    assert len(figures) == 11
    for name, figure in figures.items():
        (panel,), (legend,) = figure.axes, figure.legends
        named = [text.get_text() for text in legend.get_texts()]
        columns = np.array_split(named, legend._ncols)  # as matplotlib fills them
        by_row = [column[row] for row in range(len(columns[0])) for column in columns if row < len(column)]
        assert by_row == results.variants[1 if name in ("class_differences", "loss_difference") else 0 :]
        for handle, label in zip(*panel.get_legend_handles_labels()):
            line = handle[0] if isinstance(handle, tuple) else handle
            assert (to_hex(line.get_color()), line.get_marker()) == (style[label].color, style[label].marker), name


def test_figures_grow_with_the_variants(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = _figures(fabricate(tmp_path / "two", {"fpn": 0.1, "sni": 0.2}, seeds=(1,)), monkeypatch)
    for name, figure in _figures(many, monkeypatch).items():
        figure.draw_without_rendering()  # warns, which is an error here, if a panel finds no room
        panel, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
        assert legend.x1 <= figure.bbox.x1 and legend.y0 >= panel.y1, f"{name}: the legend does not fit"
        few[name].draw_without_rendering()
        assert panel.height > 0.9 * few[name].axes[0].get_window_extent().height, name


def test_sizes_are_shown_from_zero_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fabricate(tmp_path / "high", {"fpn": 0.01, "sni": 0.02}, seeds=(1,))
    for path in folder.glob("cells/*/*/result.json"):
        result = json.loads(path.read_text())
        (scores,) = result["results"].values()
        scores["bbox"] |= {f"{kind}{size}": value for kind, value in (("AP", 0.5), ("AR", 77.0)) for size in "sml"}
        path.write_text(json.dumps(result))
    figures = _figures(folder, monkeypatch)
    for name in ("AP_by_size", "AR_by_size"):
        (axes,) = figures[name].axes
        assert axes.get_xlim()[0] == 0 and [t.get_text() for t in axes.get_yticklabels()] == [
            "small",
            "medium",
            "large",
        ]
        assert axes.yaxis_inverted()
