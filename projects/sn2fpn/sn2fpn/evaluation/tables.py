"""Tables of results, lines of results for spreadsheets, and results as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tabulate import tabulate

from .coco import TASKS, COCOEvaluator
from .evaluator import Results
from .voc import PascalVOCEvaluator

__all__ = ["copypaste_lines", "results_table", "without_nan"]

_IN_PERCENT = {*COCOEvaluator.SCORES, *PascalVOCEvaluator.SCORES}


def results_table(results: Results, class_columns: int = 3) -> str:
    """Return tables of the overall and the per-class scores of each task.

    A score without ground truth is NaN and is printed as "no gt". If the overall AP is NaN as well, nothing could be
    computed, and "n/a" is printed.

    Args:
        results: scores, `{task: {metric: score}}`; the metrics of a class are called `AP-<class>`. Those of this
            package's evaluators are in percent. What an evaluator of one's own returns has no unit.
        class_columns: number of classes per row.
    """
    blocks = []
    for task, scores in results.items():
        absent = "n/a" if math.isnan(scores.get("AP", 0.0)) else "no gt"
        overall = {name: score for name, score in scores.items() if "-" not in name}
        row = [_cell(score, absent) for score in overall.values()]
        blocks.append(f"{task}, all classes:\n" + _pipe([row], _titles(task, overall)))
        if per_class := _per_class(scores):
            metrics = list(dict.fromkeys(metric for row in per_class.values() for metric in row))
            cells = [[name, *(_cell(row[m], absent) for m in metrics)] for name, row in per_class.items()]
            height = math.ceil(len(cells) / class_columns)
            columns = math.ceil(len(cells) / height)
            cells += [[""] * len(cells[0])] * (height * columns - len(cells))
            rows = [[text for cell in cells[r::height] for text in cell] for r in range(height)]
            header = ["class", *_titles(task, metrics)] * columns
            blocks.append(f"{task}, per class:\n" + _pipe(rows, header))
    return "\n\n".join(blocks)


def copypaste_lines(results: Results) -> list[str]:
    """Return the overall APs of each task as Detectron2's `copypaste:` lines: task, names and numbers."""
    lines = []
    for task, scores in results.items():
        overall = {name: score for name, score in scores.items() if "-" not in name and not name.startswith("AR")}
        lines += [
            f"copypaste: Task: {task}",
            "copypaste: " + ",".join(overall),
            "copypaste: " + ",".join(f"{score:.4f}" for score in overall.values()),
        ]
    return lines


def _titles(task: str, metrics: Iterable[str]) -> list[str]:
    """Return the names of metrics with their unit; a task with test-time augmentation is called "bbox_TTA"."""
    known = _IN_PERCENT if task.partition("_")[0] in TASKS else ()
    return [f"{metric} (%)" if metric in known else metric for metric in metrics]


def _per_class(scores: dict[str, float]) -> dict[str, dict[str, float]]:
    """Collect the entries `<metric>-<class>` as {class: {metric: score}}."""
    rows: dict[str, dict[str, float]] = {}
    for key, score in scores.items():
        metric, dash, name = key.partition("-")
        if dash:
            rows.setdefault(name, {})[metric] = score
    return rows


def _cell(score: float, absent: str) -> str:
    return absent if math.isnan(score) else f"{score:.2f}"


def _pipe(rows: list[list[str]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="pipe", stralign="left", disable_numparse=True)


def without_nan(value: Any) -> Any:
    """Replace NaN by None in dicts and lists, because JSON has no NaN."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
