"""Put a study's report together and write it: Markdown, one HTML page, and the figures as files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ... import __version__
from ...atomic import atomic_write
from ...errors import UserError
from ..results import StudyResults, load_results, write_tables
from .comparison import compare
from .facts import fingerprint_lines, heading_facts, rerun_commands, run_checks
from .notes import Notes
from .pictures import embedded, feature_pictures, save_sheet
from .plots import Plot, draw_plots
from .rendering import render_html, render_markdown
from .samples import SampleRow, draw_samples
from .stored import TestSet, open_test_set
from .style import inlined, looks, to_svg
from .tables import cells_table, class_differences, class_table, cost_table, feature_table, results_table

__all__ = ["write_report"]

logger = logging.getLogger(__name__)

_SECTIONS = {
    "absent": "Cells without a result",
    "conclusions": "Conclusions",
    "results": "Results",
    "cost": "Accuracy against cost",
    "sizes": "Object sizes",
    "curves": "Training curves",
    "classes": "Classes",
    "samples": "Sample predictions",
    "features": "Features",
    "fairness": "Fairness",
    "rerun": "Run it again",
}


def write_report(folder: str | Path) -> Path:
    """Write `results.csv`, `results.json` and `report/{report.md,report.html,figures/*}` of a study.

    Works at any time: cells without a result are named, and what has not been measured is left out.

    Args:
        folder: of the study, as `python -m sn2fpn.study run` fills it.

    Returns:
        The HTML page.

    Raises:
        UserError: no study there, or a broken file in it; see `load_results`.
    """
    results = load_results(folder)
    write_tables(results)
    out = results.folder / "report"
    test_set, trouble = _test_set(results)
    samples, trouble = _samples(results, test_set, trouble)
    style = looks(results.variants, results.baseline)
    differences = class_differences(results)
    plots = draw_plots(results, style, differences)
    notes = Notes(results, test_set)
    comparisons = compare(results, test_set)
    tables = {
        "results": results_table(results),
        "cells": cells_table(results),
        "costs": cost_table(results),
        "classes": class_table(results, differences),
        "features": feature_table(results),
    }
    pictures = feature_pictures(results)
    sections = {plot.section for plot in plots}
    has = {
        "absent": bool(results.absent),
        "cost": "cost" in sections or tables["costs"] is not None,
        "sizes": "sizes" in sections,
        "curves": "curves" in sections,
        "classes": tables["classes"] is not None,
        "features": tables["features"] is not None or bool(pictures),
    }
    content: dict[str, Any] = {
        **tables,
        "name": results.study.name,
        "lead": notes.lead(),
        "facts": heading_facts(results),
        "has": has,
        "sections": [(key, title) for key, title in _SECTIONS.items() if has.get(key, True)],
        "absent": results.absent,
        "absent_lead": notes.absent(),
        "summary": notes.summary(comparisons),
        "comparisons": comparisons,
        "conclusion_notes": notes.conclusions(comparisons),
        "result_notes": notes.results(),
        "cost_notes": notes.costs(),
        "size_note": notes.sizes(),
        "class_note": notes.classes(),
        "sample_note": notes.samples(samples, trouble),
        "feature_note": notes.features(),
        "fairness_note": notes.fairness(),
        "fingerprints": fingerprint_lines(results),
        "checks": run_checks(results),
        "rerun_study": f"python -m sn2fpn.study run {results.folder / 'study.yaml'}",
        "rerun_report": f"python -m sn2fpn.study report {results.folder}",
        "commands": rerun_commands(results),
        "version": __version__,
        "style_of": style,
    }
    return _write(out, content, plots, samples, pictures)


def _write(
    out: Path, content: dict[str, Any], plots: list[Plot], samples: list[SampleRow], pictures: list[Path]
) -> Path:
    drawn = [(plot, to_svg(plot.figure)) for plot in plots]
    for plot, svg in drawn:
        with atomic_write(out / "figures" / f"{plot.name}.svg") as file:
            file.write(svg)
    if samples:
        save_sheet(samples, out / "figures" / "samples.jpg")
    markdown = render_markdown(
        **content, figures=plots, samples=bool(samples), feature_pictures=[{"caption": path.name} for path in pictures]
    )
    with atomic_write(out / "report.md") as file:
        file.write(markdown)
    html = render_html(
        **content,
        figures=[
            {"section": plot.section, "title": plot.title, "svg": inlined(svg, plot.name, plot.title)}
            for plot, svg in drawn
        ],
        samples=[
            {
                "file_name": row.file_name,
                "pictures": [
                    embedded(picture, caption) for caption, picture in zip(row.captions, row.pictures, strict=True)
                ],
            }
            for row in samples
        ],
        feature_pictures=[embedded(path, path.name) for path in pictures],
    )
    with atomic_write(out / "report.html") as file:
        file.write(html)
    return out / "report.html"


def _test_set(results: StudyResults) -> tuple[TestSet | None, str]:
    """The set of the finished cells, or why it is not at hand."""
    if not results.finished:
        return None, "no cell has finished"
    try:
        if results.study.imports:  # they may register the set
            from ...engine import import_files

            import_files(results.study.imports, f"{results.study.path}: IMPORTS:")
        return open_test_set(results.finished[0]), ""
    except UserError as e:
        logger.warning("%s", e)
        return None, str(e)


def _samples(results: StudyResults, test_set: TestSet | None, trouble: str) -> tuple[list[SampleRow], str]:
    """Pictures of the first seed's cells, or why there are none."""
    if test_set is None:
        return [], trouble
    first = [cells[0] for name in results.variants if (cells := results.of(name))]
    try:
        return draw_samples(test_set, first), ""
    except UserError as e:
        logger.warning("%s", e)
        return [], str(e)
