"""The section on errors: what keeps each variant from a higher AP50, and its precision at each recall."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import UserError
from ...evaluation import PascalVOCEvaluator
from ...evaluation.error_split import KINDS, TOTALS, ErrorSplit, split_errors
from ..measure.results import StudyResults
from ..measure.statistics import mean_interval, paired_difference
from .content import Entry, Plot, Section, Table, number
from .samples import TestSet
from .style import Look, draw_line, legend, new_figure, new_rows, spread_markers, styled, to_svg

__all__ = ["error_section"]

logger = logging.getLogger(__name__)

_NOTES = (
    "The table says how many points of AP50 each variant would gain if the errors of one kind were corrected and "
    "all others stayed (TIDE: Bolya et al., ECCV 2020). Localisation errors cover an object of their class too "
    "loosely (IoU of 0.1 to 0.5). Classification errors cover an object of another class (at least 0.5). Duplicates "
    'are further detections of an object that has been found. "Both" covers an object of another class too '
    "loosely. Background errors cover no object. A false positive is of the first of these kinds that holds. An "
    "object is missed if it has neither a right detection nor a localisation or classification error. Because "
    "correcting one kind can uncover another, the points do not add up. The last two columns correct all false "
    "positives, whatever their kind, and all objects without a right detection (false negatives, of which the "
    "missed ones are a part). An object that is not found costs the more, the more precise the other detections "
    "are. Entries are means over seeds; brackets hold the paired difference to the baseline.",
    "The curves show the best precision at a recall of at least the value on the axis, at an IoU of 0.5, as the mean "
    "over classes and seeds. They end at the largest recall of all detections that were kept.",
)
_NOT_OF_VOC = (
    "The AP50 of this section is read at 101 recalls, as COCO's is. It therefore differs from the AP50 of the results, "
    "which is that of Pascal VOC. Difficult objects count in neither."
)
_ONE_CLASS = "With a single class, there are no classification errors and no detections of another class."


def error_section(results: StudyResults, test_set: TestSet | None, style: Mapping[str, Look]) -> Section:
    """Return the section, which is empty without a test set or stored predictions."""
    splits = {name: _splits(results, test_set, name) for name in results.variants} if test_set else {}
    splits = {name: found for name, found in splits.items() if found}
    if not splits:
        return Section("errors", "Errors")
    of_voc = isinstance(test_set.evaluator(results.finished[0]), PascalVOCEvaluator)
    notes = [*_NOTES, *[_ONE_CLASS] * (len(test_set.class_names) == 1), *[_NOT_OF_VOC] * of_voc]
    kinds = _kinds(test_set)
    plots = [_lost_plot(splits, kinds, style), _precision_plot(splits, style)]
    tables = _table(results, splits, kinds), _counts_table(splits, kinds, len(test_set.records))
    return Section("errors", "Errors", plots, tables[0], notes, details=tables[1])


def _kinds(test_set: TestSet) -> list[str]:
    """Return the kinds of errors that a detector can make on a test set."""
    return [kind for kind in KINDS if len(test_set.class_names) > 1 or kind not in ("classification", "both")]


def _splits(results: StudyResults, test_set: TestSet, variant: str) -> dict[int, ErrorSplit]:
    """Return the errors of a variant's finished cells by seed, as far as their predictions are at hand."""
    found = {}
    for cell in results.of(variant):
        try:
            found[cell.seed] = split_errors(test_set.judged(cell), len(test_set.class_names))
        except UserError as e:
            logger.warning("no errors for %s: %s", cell.cell.name, e)
    return found


def _table(results: StudyResults, splits: Mapping[str, Mapping[int, ErrorSplit]], kinds: Sequence[str]) -> Table:
    base = splits.get(results.baseline, {})
    rows = []
    for name, found in splits.items():
        shared = [seed for seed in found if seed in base]
        entries = []
        for column in (*kinds, *TOTALS):
            lost, of_base = ({seed: (s.lost | s.lost_to)[column] for seed, s in of.items()} for of in (found, base))
            mean = mean_interval(list(lost.values())).mean
            text = number(mean)
            if name != results.baseline and shared:
                change = paired_difference([lost[s] for s in shared], [of_base[s] for s in shared])
                text += f" ({number(change.mean, 1, '+')})"
            entries.append(Entry(text, mean))
        ap50 = mean_interval([split.ap50 for split in found.values()]).mean
        rows.append([Entry(name, name), Entry(number(ap50), ap50), *entries])
    titles = ["variant", "AP50", *kinds, *(f"all {name}" for name in TOTALS)]
    return Table("Points of AP50 lost by kind of error", titles, rows)


def _counts_table(splits: Mapping[str, Mapping[int, ErrorSplit]], kinds: Sequence[str], images: int) -> Table:
    rows = []
    for name, found in splits.items():
        recall = mean_interval([split.found for split in found.values()]).mean
        counts = [mean_interval([split.count[kind] / images for split in found.values()]).mean for kind in kinds]
        numbers = [Entry(number(recall), recall), *(Entry(number(count, 2), count) for count in counts)]
        rows.append([Entry(name, name), *numbers])
    return Table(
        "Errors per image, at any score that the detector keeps", ["variant", "objects found (%)", *kinds], rows
    )


@styled
def _lost_plot(splits: Mapping[str, Mapping[int, ErrorSplit]], kinds: Sequence[str], style: Mapping[str, Look]) -> Plot:
    figure, axes = new_rows(kinds, len(splits), "lost AP50 (points)")
    step = min(0.2, 0.8 / len(splits))
    for i, (name, found) in enumerate(splits.items()):
        lost = np.mean([[split.lost[kind] for kind in kinds] for split in found.values()], axis=0)
        at = np.arange(len(kinds)) + (i - (len(splits) - 1) / 2) * step
        axes.hlines(at, 0, lost, color=style[name].color, linewidth=1.6)
        axes.plot(lost, at, style[name].marker, color=style[name].color, markeredgewidth=0, label=name)
    legend(figure, axes)
    return Plot("lost_AP50", "AP50 that each kind of error costs", to_svg(figure))


@styled
def _precision_plot(splits: Mapping[str, Mapping[int, ErrorSplit]], style: Mapping[str, Look]) -> Plot:
    figure, axes = new_figure(3.3, "recall (%)", "precision (%)")
    for i, (name, found) in enumerate(splits.items()):
        curve = np.mean([split.precision for split in found.values()], axis=0)
        reached = max(1, np.count_nonzero(curve))
        recall = np.linspace(0, 100, len(curve))
        draw_line(axes, recall[:reached], curve[:reached], style[name], name, spread_markers(i))
    axes.set(xlim=(0, 100), ylim=(0, 100))
    legend(figure, axes)
    return Plot("precision_recall", "Precision against recall at an IoU of 0.5", to_svg(figure))
