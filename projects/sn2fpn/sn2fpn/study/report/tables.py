"""The tables of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..measure.results import StudyResults
from ..measure.statistics import Interval, chance
from .comparison import Comparison, best_variant, cost_ratio, difference, interval, limits
from .content import ABSENT, Entry, Table, number

__all__ = [
    "cells_table",
    "class_differences",
    "class_label",
    "class_table",
    "comparison_table",
    "cost_table",
    "feature_table",
    "results_table",
]


def results_table(results: StudyResults, comparisons: Sequence[Comparison]) -> Table:
    """Return each variant's means with half of their 95 % intervals over seeds, and its main costs."""
    costs = [column for column in _COSTS[:3] if column.is_known(results)]
    best = {metric: best_variant(results, metric, comparisons) for metric in results.metrics}
    rows = []
    for name in results.variants:
        done, asked = len(results.of(name)), len(results.study.seeds[name])
        row = [_name(name), Entry(str(done) if done == asked else f"{done} of {asked}", done)]
        for metric in results.metrics:
            row.append(_mean(interval(results, name, metric))._replace(bold=best[metric] == name))
        rows.append(row + [_number(column.read(results, name), column.digits) for column in costs])
    labels = map(results.label, results.metrics)
    return Table("Results", ["variant", "seeds", *labels, *(column.title for column in costs)], rows)


def comparison_table(results: StudyResults, comparisons: Sequence[Comparison]) -> Table | None:
    """Return each difference to the baseline with its intervals and p-values; None without differences."""
    rows = []
    for c in comparisons:
        entries = [
            Entry(f"{number(c.seeds.mean, 2, '+')}", c.seeds.mean),
            Entry(limits(c.seeds)),
            _chance(c.seeds.p),
            Entry(limits(c.images)),
            _chance(c.images.p),
            _chance(c.verdict.p),
        ]
        rows.append([_name(c.variant), Entry(str(c.seeds.n), c.seeds.n), *entries])
    titles = ["over seeds (95 %)", "p, seeds", "over images (95 %)", "p, images", "p, corrected"]
    title = f"{results.label(results.headline)} − {results.baseline}"
    return Table(f"Differences to {results.baseline}", ["variant", "seeds", title, *titles], rows) if rows else None


def _chance(p: float) -> Entry:
    return Entry(chance(p), p) if math.isfinite(p) else Entry(ABSENT)


def cells_table(results: StudyResults) -> Table:
    """Return every cell with its scores or with its state."""
    rows = []
    for cell in results.cells:
        seconds, state = cell.result.get("train_seconds"), str(cell.status.state)
        minutes = seconds / 60 if isinstance(seconds, (int, float)) else None
        scores = [_number(results.score(cell, metric), 2) for metric in results.metrics]
        entries = [_name(cell.variant), Entry(str(cell.seed), cell.seed), _name(state), *scores, _number(minutes, 1)]
        rows.append(entries)
    labels = map(results.label, results.metrics)
    return Table("Every cell", ["variant", "seed", "state", *labels, "training (min)"], rows)


def cost_table(results: StudyResults) -> Table | None:
    """Return parameters, GFLOPs, times and memory, with ratios of times to the baseline's; None if none is measured."""
    columns = [column for column in _COSTS if column.is_known(results)]
    if not columns:
        return None
    rows = [[_name(name), *(column.entry(results, name) for column in columns)] for name in results.variants]
    return Table("Cost and speed", ["variant", *(column.title for column in columns)], rows)


class _Cost(NamedTuple):
    """A column of costs."""

    title: str
    name: str  # in `StudyResults.measured`
    digits: int
    unit: float = 1.0
    relative: bool = False  # whether the ratio to the baseline is shown, too

    def read(self, results: StudyResults, variant: str) -> float:
        return results.measured(variant)[self.name] / self.unit

    def is_known(self, results: StudyResults) -> bool:
        return any(math.isfinite(self.read(results, name)) for name in results.variants)

    def entry(self, results: StudyResults, variant: str) -> Entry:
        entry = _number(self.read(results, variant), self.digits)
        if self.relative and variant != results.baseline:
            ratio = cost_ratio(results, variant, results.baseline, self.name).value
            if math.isfinite(ratio):
                return entry._replace(text=f"{entry.text} ({number(ratio, 2)}×)")
        return entry


_COSTS = (
    _Cost("parameters (M)", "parameters", 2, 1e6),
    _Cost("GFLOPs", "gflops", 2),
    _Cost("latency (ms)", "latency_ms", 1, relative=True),
    _Cost("pyramid (M)", "pyramid_parameters", 2, 1e6),
    _Cost("pyramid (GFLOPs)", "pyramid_gflops", 2),
    _Cost("training (images/s)", "train_images_per_s", 2, relative=True),
    _Cost("inference memory (MiB)", "inference_memory_mib", 0),
    _Cost("training memory (MiB)", "training_memory_mib", 0),
)


def class_differences(results: StudyResults) -> dict[str, dict[str, Interval]]:
    """Return {class: {variant: difference to the baseline}} of AP per class, {} if nothing can be compared.

    The task is that of the headline. "AP-<class>" is compared, or "AP50-<class>" if the headline is AP50 and the metric
    has it. A single class is left out, because its AP is that of the results.
    """
    metrics = _per_class_metrics(results)
    if len(metrics) < 2:
        return {}
    others = [name for name in results.variants if name != results.baseline]
    found = {
        class_name: {name: difference(results, name, results.baseline, metric) for name in others}
        for class_name, metric in metrics.items()
    }
    known = {class_name: {name: d for name, d in row.items() if d.n} for class_name, row in found.items()}
    return {class_name: row for class_name, row in known.items() if row}


def class_table(results: StudyResults, differences: Mapping[str, Mapping[str, Interval]]) -> Table | None:
    """Return the baseline's AP per class and each variant's difference to it; None without differences."""
    variants = [name for name in results.variants if any(name in row for row in differences.values())]
    if not variants:
        return None
    strongest = max(abs(bounds.mean) for row in differences.values() for bounds in row.values()) or 1.0
    metrics, rows = _per_class_metrics(results), []
    for class_name, row in differences.items():
        entries = [
            _mean(row[name], sign="+")._replace(shade=row[name].mean / strongest) if name in row else Entry(ABSENT)
            for name in variants
        ]
        rows.append([_name(class_name), _mean(interval(results, results.baseline, metrics[class_name])), *entries])
    titles = [f"{results.baseline} {class_label(results)}", *(f"{name} − {results.baseline}" for name in variants)]
    return Table("Differences by class", ["class", *titles], rows)


def class_label(results: StudyResults) -> str:
    """Return the name of the metric that classes are compared by."""
    metric = next(iter(_per_class_metrics(results).values()), results.headline)
    return results.label(metric.partition("-")[0])


def _per_class_metrics(results: StudyResults) -> dict[str, str]:
    """Return {class: the metric with its AP} for the headline's task."""
    task, _, name = results.headline.rpartition("/")
    present = list(dict.fromkeys(metric for cell in results.finished for metric in cell.scores))
    for prefix in (f"{task}/{name}-", f"{task}/AP-"):
        if classes := {metric.removeprefix(prefix): metric for metric in present if metric.startswith(prefix)}:
            return classes
    return {}


def feature_table(results: StudyResults) -> Table | None:
    """Return the measures of the feature maps, a row per variant and level; None if they are not measured."""
    rows: list[tuple[str, str, dict[str, Any]]] = [
        (name, level, values)
        for name, levels in results.features.get("variants", {}).items()
        if name in results.variants  # an earlier study file may have had others
        for level, values in levels.items()
        if isinstance(values, dict)
    ]
    measures = list(dict.fromkeys(key for _, _, values in rows for key in values))
    if not measures:
        return None
    entries = [[_name(name), _name(level), *(_number(v.get(key), 3) for key in measures)] for name, level, v in rows]
    columns = ["variant", "level", *(key.replace("_", " ") for key in measures)]
    return Table("Measures of the feature maps", columns, entries)


def tuning_table(results: StudyResults) -> Table | None:
    """Return the scores on the tuning data by variant and value, the used value in bold; None without TUNE."""
    if not results.tuning:
        return None
    values = list(dict.fromkeys(value for choice in results.tuning for value in choice.scores))
    rows = [
        [
            _name(choice.variant),
            *(Entry(number(score := choice.scores.get(value), 2), score, value == choice.used) for value in values),
        ]
        for choice in results.tuning
    ]
    return Table(f"{results.label(results.tuning_metric)} on the tuning data", ["variant", *values], rows)


def _name(text: str) -> Entry:
    return Entry(text, text)


def _number(value: float | None, digits: int) -> Entry:
    known = value is not None and math.isfinite(value)
    return Entry(number(value, 0 if isinstance(value, int) else digits), value if known else None)


def _mean(bounds: Interval, sign: str = "") -> Entry:
    """Return a mean with half of its interval as far as they are known, for example "41.2 ± 0.8"."""
    half = "" if math.isnan(bounds.low) else f" ± {number((bounds.high - bounds.low) / 2)}"
    return Entry(number(bounds.mean, sign=sign) + half, bounds.mean if bounds.n else None)
