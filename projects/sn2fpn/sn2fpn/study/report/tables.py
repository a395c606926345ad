"""The report's tables, as rows of entries that both the page and the Markdown file show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..results import StudyResults
from ..statistics import Interval
from .comparison import best_variant, difference, interval
from .words import ABSENT, number, plus_minus, signed

__all__ = [
    "Entry",
    "Table",
    "cells_table",
    "class_differences",
    "class_label",
    "class_table",
    "cost_table",
    "feature_table",
    "results_table",
]

_LEVEL_KEYS = ("images", "set")  # of features.json, beside the variants


class Entry(NamedTuple):
    """What stands in a row's column.

    Attributes:
        sort: what the column is sorted by; None: last.
        bold: the best of its column, distinguishably.
        shade: from -1 (strongly worse) to 1 (strongly better), the colour behind the text.
    """

    text: str
    sort: float | str | None = None
    bold: bool = False
    shade: float = 0.0


@dataclass(frozen=True)
class Table:
    """Column titles, and rows as wide as they are; the first column names the row."""

    columns: list[str]
    rows: list[list[Entry]]


def results_table(results: StudyResults) -> Table:
    """Mean ± 95 % interval over seeds of each metric, then what the variant costs."""
    metrics = results.metrics
    costs = [column for column in _COSTS[:3] if any(column.has(results, name) for name in results.variants)]
    best = {metric: best_variant(results, metric) for metric in metrics}
    rows = []
    for name in results.variants:
        row = [_name(name), _count(len(results.of(name)), len(results.study.seeds))]
        row += [_mean(interval(results, name, metric), bold=best[metric] == name) for metric in metrics]
        rows.append(row + [column._replace(relative=False).entry(results, name) for column in costs])
    return Table(["variant", "seeds", *map(results.label, metrics), *(c.title for c in costs)], rows)


def cost_table(results: StudyResults) -> Table | None:
    """Parameters, GFLOPs, times and memory; times also as a ratio to the baseline's. None: nothing was measured."""
    columns = [c for c in _COSTS if any(c.has(results, name) for name in results.variants)]
    if not columns:
        return None
    rows = [[_name(name), *(column.entry(results, name) for column in columns)] for name in results.variants]
    return Table(["variant", *(column.title for column in columns)], rows)


def cells_table(results: StudyResults) -> Table:
    """Every cell with its scores, or with the state it is in."""
    rows = []
    for cell in results.cells:
        scores = [cell.scores.get(metric, math.nan) for metric in results.metrics]
        minutes = cell.result.get("train_seconds")
        minutes = minutes / 60 if isinstance(minutes, (int, float)) else math.nan
        rows.append(
            [
                _name(cell.variant),
                Entry(str(cell.seed), cell.seed),
                Entry(cell.state, cell.state),
                *(_number(score, 2) for score in scores),
                _number(minutes, 1),
            ]
        )
    return Table(["variant", "seed", "state", *map(results.label, results.metrics), "training (min)"], rows)


def class_differences(results: StudyResults) -> dict[str, dict[str, Interval]]:
    """{class: {variant: difference to the baseline}} of the headline's per-class AP; {} without a second variant.

    Of VOC's metric and COCO's the classes have "AP"; "AP50-<class>" is taken where the headline is AP50 and exists.
    """
    classes = _per_class_metrics(results)
    found = {}
    for class_name, metric in classes.items():
        row = {
            name: bounds
            for name in results.variants
            if name != results.baseline and (bounds := difference(results, name, results.baseline, metric)) is not None
        }
        if row:
            found[class_name] = row
    return found


def class_table(results: StudyResults, differences: Mapping[str, Mapping[str, Interval]]) -> Table | None:
    """The baseline's per-class AP, and each variant's difference to it."""
    variants = [name for name in results.variants if any(name in row for row in differences.values())]
    if not variants:
        return None
    strongest = max(abs(bounds.mean) for row in differences.values() for bounds in row.values()) or 1.0
    metrics, rows = _per_class_metrics(results), []
    for class_name, row in differences.items():
        base = interval(results, results.baseline, metrics[class_name])
        entries = [_name(class_name), _mean(base)]
        for name in variants:
            bounds = row.get(name)
            entries.append(
                Entry(ABSENT)
                if bounds is None
                else Entry(signed(bounds.mean) + _half(bounds), bounds.mean, shade=bounds.mean / strongest)
            )
        rows.append(entries)
    return Table(
        ["class", f"{results.baseline} {class_label(results)}", *(f"{name} − {results.baseline}" for name in variants)],
        rows,
    )


def feature_table(results: StudyResults) -> Table | None:
    """The measures of features.json, a row per variant and level; None without that file."""
    variants = {
        name: levels
        for name, levels in results.features.items()
        if name not in _LEVEL_KEYS and isinstance(levels, dict)
    }
    measures = list(
        dict.fromkeys(
            key
            for levels in variants.values()
            for values in levels.values()
            if isinstance(values, dict)
            for key in values
        )
    )
    if not measures:
        return None
    rows = [
        [_name(name), Entry(level, level), *(_number(values.get(key), 3) for key in measures)]
        for name, levels in variants.items()
        for level, values in levels.items()
        if isinstance(values, dict)
    ]
    return Table(["variant", "level", *(key.replace("_", " ") for key in measures)], rows)


class _Cost(NamedTuple):
    title: str
    read: Any  # (results, variant) -> float
    digits: int
    relative: bool = False  # also as a ratio to the baseline's

    def has(self, results: StudyResults, variant: str) -> bool:
        return math.isfinite(self.read(results, variant))

    def entry(self, results: StudyResults, variant: str) -> Entry:
        value, base = self.read(results, variant), self.read(results, results.baseline)
        entry = _number(value, self.digits)
        if self.relative and variant != results.baseline and math.isfinite(value / base if base else math.nan):
            return entry._replace(text=f"{entry.text} ({value / base:.2f}×)")
        return entry


def _part(kind: str, part: str, unit: float) -> Any:
    def read(results: StudyResults, variant: str) -> float:
        value = results.costs.get(variant, {}).get(kind, {}).get(part)
        return math.nan if value is None else value / unit

    return read


_COSTS = (
    _Cost("parameters (M)", lambda r, v: r.parameters(v) / 1e6, 2),
    _Cost("GFLOPs", lambda r, v: r.gflops(v), 2),
    _Cost("latency (ms)", lambda r, v: r.latency_ms(v), 1, relative=True),
    _Cost("pyramid (M)", _part("parameters", "pyramid", 1e6), 2),
    _Cost("pyramid (GFLOPs)", _part("flops", "pyramid", 1e9), 2),
    _Cost("training (images/s)", lambda r, v: r.throughput(v), 2, relative=True),
    _Cost("inference memory (MiB)", lambda r, v: r.peak_memory_mib(v, "inference"), 0),
    _Cost("training memory (MiB)", lambda r, v: r.peak_memory_mib(v, "training"), 0),
)


def _per_class_metrics(results: StudyResults) -> dict[str, str]:
    """class -> the metric that holds its AP, of the headline's task."""
    task, _, name = results.headline.rpartition("/")
    present = list(dict.fromkeys(metric for cell in results.finished for metric in cell.scores))
    for prefix in (f"{task}/{name}-", f"{task}/AP-"):
        if classes := {metric.removeprefix(prefix): metric for metric in present if metric.startswith(prefix)}:
            return classes
    return {}


def class_label(results: StudyResults) -> str:
    """The metric that the classes are compared by."""
    metric = next(iter(_per_class_metrics(results).values()), results.headline)
    return results.label(metric.partition("-")[0])


def _name(text: str) -> Entry:
    return Entry(text, text)


def _count(finished: int, asked: int) -> Entry:
    return Entry(str(finished) if finished == asked else f"{finished} of {asked}", finished)


def _number(value: float | None, digits: int) -> Entry:
    known = value is not None and math.isfinite(value)
    return Entry(number(value, 0 if isinstance(value, int) else digits), value if known else None)


def _mean(bounds: Interval | None, bold: bool = False) -> Entry:
    if bounds is None:
        return Entry(ABSENT)
    return Entry(number(bounds.mean) + _half(bounds), bounds.mean, bold)


def _half(bounds: Interval) -> str:
    if bounds.n < 2:
        return ""
    return plus_minus(bounds.mean, bounds.low, bounds.high).removeprefix(number(bounds.mean))
