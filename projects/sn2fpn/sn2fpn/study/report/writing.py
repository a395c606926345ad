"""Put a study's report together and write it: a Markdown file, an HTML page, and the plots as files."""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ... import __version__
from ...atomic import atomic_write
from ...errors import ArgumentError, UserError, argument_names
from ..archive import archive_name
from ..archive.pack import opened
from ..measure.results import StudyResults, load_results
from ..measure.tidy_table import write_tables
from . import cost_notes, facts, notes
from .answers import answer_questions
from .charts import class_plots, cost_plots, size_plots
from .comparison import Comparison, compare, difference
from .conclusion import summary
from .content import Section, Strip, embed
from .contrast import draw_contrast
from .curve_charts import curve_plots, tuning_plots
from .error_section import error_section
from .rendering import Report, render_html, render_markdown
from .samples import SampleRow, TestSet, draw_samples, open_test_set, save_sheet
from .style import Look, looks
from .tables import (
    cells_table,
    class_differences,
    class_label,
    class_table,
    comparison_table,
    cost_table,
    feature_table,
    results_table,
    tuning_table,
)

__all__ = ["main", "write_report"]

logger = logging.getLogger(__name__)
_SHEET = "figures/samples.jpg"


def write_report(
    source: str | Path, output: str | Path | None = None, pictures: bool = True, trust: bool = False
) -> Path:
    """Write `report.md`, `report.html` and `figures/*` of a study, and its tables `results.csv` and `results.json`.

    This works at any time: cells without a result are named, and what is not measured is left out.

    Args:
        source: a study's folder, or an archive that `study pack` has written.
        output: the folder to write to. Without it, the report of a folder is written to `report/` inside it and the
            tables beside that; the report of an archive is written to a folder named after the archive.
        pictures: show test images with detections and feature maps, where the data set is on this machine.
        trust: run the Python files that the study imports, which may be needed to find its pictures, also if they are
            not the user's own. Without them the report says why it has no pictures.

    Returns:
        The path of the HTML page.

    Raises:
        UserError: `source` is neither a study's folder nor an archive, or a file in it is broken.
        ArgumentError: `output`, or the folder named after the archive, is a file.
    """
    source = Path(source)
    with opened(source) as folder:
        out, tables = _places(source, output)
        results = load_results(folder, trust)
        write_tables(results, tables)
        return _write(results, out, source, pictures)


def _places(source: Path, output: str | Path | None) -> tuple[Path, Path]:
    """Return the folder of the report and that of the tables."""
    if output is None and source.is_dir():
        return source / "report", source
    out = Path(archive_name(source) if output is None else output)
    if out.is_file():
        usual = ", whose name the report's folder would have by default" if output is None else ""
        raise ArgumentError("output", f"expected a folder, found the file {out}{usual}")
    return out, out


def _write(results: StudyResults, out: Path, source: Path, pictures: bool) -> Path:
    test_set, samples, trouble = _samples(results, pictures)
    contrasts = _contrasts(results, test_set) if samples and test_set else {}
    features = _feature_sections(results, out, pictures)
    report = _build(results, source, test_set, samples, trouble, contrasts, features)
    texts = {"report.md": render_markdown(report), "report.html": render_html(report)}
    texts |= {f"figures/{plot.name}.svg": plot.svg for section in report.sections for plot in section.plots}
    for name, text in texts.items():
        with atomic_write(out / name) as file:
            file.write(text)
    sheets = {out / name: rows for name, rows in {_SHEET: samples, **contrasts}.items() if rows}
    for path, rows in sheets.items():
        save_sheet(rows, path)
    ours = {out / _contrast_sheet(*pair) for pair in itertools.permutations(results.variants, 2)} | {out / _SHEET}
    for old in ours - sheets.keys():
        old.unlink(missing_ok=True)  # a report without pictures may be passed on
    return out / "report.html"


def _build(
    results: StudyResults,
    source: Path,
    test_set: TestSet | None,
    samples: list[SampleRow],
    trouble: str,
    contrasts: Mapping[str, list[SampleRow]],
    features: list[Section],
) -> Report:
    style = looks(results.variants, results.baseline)
    comparisons = compare(results, test_set)
    sample_section = _sample_section(samples, notes.samples(results, samples, test_set, trouble))
    return Report(
        name=results.study.name,
        lead=notes.lead(results),
        facts=facts.heading_facts(results),
        absent=notes.absent_groups(results),
        absent_note=notes.absent(results),
        answers=answer_questions(results, test_set),
        summary=summary(results, comparisons),
        comparisons=comparisons,
        comparison_table=comparison_table(results, comparisons),
        conclusion_notes=notes.comparisons(results, comparisons),
        sections=[
            *_number_sections(results, comparisons, style, test_set),
            sample_section,
            *_contrast_sections(contrasts),
            *features,
        ],
        fairness_note=notes.fairness(results),
        fingerprints=facts.fingerprint_lines(results),
        checks=facts.run_checks(results),
        reruns=facts.rerun(results, source),
        cell_commands=facts.cell_commands(results),
        version=__version__,
        looks=style,
    )


def _number_sections(
    results: StudyResults, comparisons: list[Comparison], style: Mapping[str, Look], test_set: TestSet | None
) -> list[Section]:
    table = Section(
        "results",
        "Results",
        table=results_table(results, comparisons),
        notes=notes.results(results, comparisons),
        details=cells_table(results),
    )
    differences = class_differences(results)
    others = [
        Section(
            "cost",
            "Accuracy against cost",
            cost_plots(results, style),
            cost_table(results),
            cost_notes.costs(results),
            warnings=cost_notes.cost_warnings(results),
            switch=True,
        ),
        Section("sizes", "Object sizes", size_plots(results, style), notes=notes.sizes(test_set)),
        error_section(results, test_set, style),
        Section("curves", "Training curves", curve_plots(results, style), notes=notes.curves(results)),
        Section(
            "classes",
            "Classes",
            class_plots(results, style, differences),
            class_table(results, differences),
            notes.classes(results, class_label(results)),
        ),
    ]
    if results.tuning:
        others.append(
            Section(
                "tuning",
                "Tuned settings",
                tuning_plots(results, style),
                tuning_table(results),
                notes.tuning(results),
                warnings=notes.tuning_warnings(results),
            )
        )
    return [table, *(section for section in others if section.has_content)]


def _sample_section(samples: list[SampleRow], note: list[str]) -> Section:
    strips = [Strip(row.file_name, list(map(embed, row.pictures, row.captions))) for row in samples]
    links = [("Ground truth and predictions", _SHEET)] if samples else []
    return Section("samples", "Sample predictions", notes=note, strips=strips, links=links)


def _contrasts(results: StudyResults, test_set: TestSet) -> dict[str, list[SampleRow]]:
    """Return pictures of the first pair of variants that a question compares, or of the most different variant.

    There are none if predictions or images are not at hand.
    """
    pairs = [(q.compare[0], q.against) for q in results.study.questions if q.compare]
    gaps = {v: abs(difference(results, v, results.baseline, results.headline).mean) for v in results.variants}
    gaps = {name: gap for name, gap in gaps.items() if name != results.baseline and math.isfinite(gap)}
    pairs += [(max(gaps, key=gaps.__getitem__), results.baseline)] if gaps else []
    for variant, against in pairs:
        if results.of(variant) and results.of(against):
            try:
                return {_contrast_sheet(variant, against): draw_contrast(results, test_set, variant, against)}
            except UserError as e:
                logger.warning("no pictures of where %s and %s differ most: %s", variant, against, e)
                break
    return {}


def _contrast_sheet(variant: str, against: str) -> str:
    return f"figures/{variant}_and_{against}.jpg"


def _contrast_sections(contrasts: Mapping[str, list[SampleRow]]) -> list[Section]:
    strips = [
        Strip(row.file_name, list(map(embed, row.pictures, row.captions)))
        for rows in contrasts.values()
        for row in rows
    ]
    links = [("Images on which two variants differ most", name) for name, rows in contrasts.items() if rows]
    section = Section("contrast", "Where two variants differ most", notes=notes.CONTRAST, strips=strips, links=links)
    return [section] if section.has_content else []


def _feature_sections(results: StudyResults, out: Path, with_pictures: bool) -> list[Section]:
    pictures = sorted((results.folder / "features").glob("*.png")) if with_pictures else []
    section = Section(
        "features",
        "Features",
        table=feature_table(results),
        notes=notes.features(results),
        strips=[Strip(path.name, [embed(path, path.name)]) for path in pictures],
        links=[(path.name, os.path.relpath(path, out)) for path in pictures],
    )
    return [section] if section.has_content else []


def _samples(results: StudyResults, pictures: bool) -> tuple[TestSet | None, list[SampleRow], str]:
    """Return the test set, pictures of the first seed's cells, and why there are none."""
    if not results.finished:
        return None, [], "no cell has finished"
    test_set = None
    try:
        test_set = open_test_set(results)
        if not pictures:
            return test_set, [], "they were left out on request"
        return test_set, draw_samples(test_set, [c[0] for name in results.variants if (c := results.of(name))]), ""
    except UserError as e:
        logger.warning("%s", e)
        return test_set, [], str(e)


def main(args: argparse.Namespace) -> int:
    """Write the report, print its path and return 0; raise a UserError as `write_report` does."""
    with argument_names({"output": "--output"}):
        print(write_report(args.source, args.output, args.pictures, args.trust))
    return 0
