"""The words of the report: facts, sentences on what was done and what follows from it, and how to read each section."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..measure.results import CellResult, StudyResults
from ..spec.fingerprint import differences_by_seed
from .comparison import Comparison, best_variant
from .content import ABSENT, joined, plural
from .samples import SCORE_THRESHOLD, SampleRow, TestSet


class Check(NamedTuple):
    """Whether the cells agree in something."""

    what: str
    equal: bool
    detail: str


def heading_facts(results: StudyResults) -> list[tuple[str, str]]:
    """Return (label, text) of the facts at the head of the report."""
    study, finished = results.study, results.finished
    iterations = [cell.result.get("iterations") for cell in finished]
    started = sorted(str(c.identity["started"]) for c in results.cells if c.identity.get("started"))
    ended = sorted(str(c.result["finished"]) for c in finished if c.result.get("finished"))
    facts = {axis: joined(variant.axes[axis] for variant in study.variants) for axis in study.axes} | {
        "baseline": results.baseline,
        "base config": study.base.name,
        "settings for all": joined(f"{key} {value}" for key, value in study.settings.items()),
        "test sets": joined(name for cell in finished for name in cell.test_sets),
        "seeds": joined(study.seeds),
        "iterations": joined(f"{n:,}" for n in iterations if isinstance(n, int)),
        "engine": joined(cell.result.get("engine") for cell in finished),
        "commit": joined(cell.identity.get("commit") for cell in finished),
        "machine": joined(cell.identity.get("host") for cell in finished),
        "versions": joined(_versions(cell) for cell in finished),
        "dates": " to ".join(dict.fromkeys(t[:16].replace("T", " ") for t in [*started[:1], *ended[-1:]])),
        "cells": f"{len(finished)} of {plural(len(results.cells), 'cell')} finished",
    }
    return [(label, text) for label, text in facts.items() if text not in ("", ABSENT)]


def fingerprint_lines(results: StudyResults) -> list[tuple[str, list[str]]]:
    """Return ("seed 1, 2", lines) that say what was equal between the variants of these seeds and what differed."""
    found = differences_by_seed({cell.cell: cell.identity for cell in results.cells})
    return [(f"seed {joined(seeds)}", lines) for seeds, lines in found]


def run_checks(results: StudyResults) -> list[Check]:
    """Check that software, commit, machine, engine and iterations are the same in all finished cells."""
    checks = []
    for what, read in _SHARED.items():
        groups: dict[str, list[str]] = {}
        for cell in results.finished:
            groups.setdefault(str(read(cell) or "unknown"), []).append(cell.cell.name)
        if groups and list(groups) != ["unknown"]:
            detail = "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())
            checks.append(Check(what, len(groups) == 1, detail if len(groups) > 1 else next(iter(groups))))
    return checks


def cell_commands(results: StudyResults) -> list[tuple[str, str]]:
    """Return (cell, command line) of the cells that were started."""
    commands = {cell.cell.name: cell.identity.get("command") for cell in results.cells}
    return [(name, shlex.join(map(str, words))) for name, words in commands.items() if isinstance(words, list)]


def _versions(cell: CellResult) -> str | None:
    versions = cell.identity.get("versions")
    return ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else versions


_SHARED: dict[str, Callable[[CellResult], Any]] = {
    "software versions": _versions,
    "commit": lambda cell: cell.identity.get("commit"),
    "machine": lambda cell: cell.identity.get("host"),
    "engine": lambda cell: cell.result.get("engine"),
    "iterations": lambda cell: cell.result.get("iterations"),
}


def lead(study: StudyResults) -> str:
    seeds = plural(len(study.study.seeds), "seed")
    return (
        f"This study trains {plural(len(study.variants), 'variant')} in the same way with {seeds} each: "
        f"{joined(study.variants)}. Scores are in percent."
    )


def absent(study: StudyResults) -> str:
    return (
        f"{len(study.absent)} of {plural(len(study.cells), 'cell')} gave no result. All numbers below come from the "
        "finished cells. Differences are taken between seeds that both variants have finished."
    )


def summary(study: StudyResults, found: Sequence[Comparison]) -> str:
    """Return the conclusion in one sentence."""
    headline, baseline = study.label(study.headline), study.baseline
    if not study.finished:
        return "No cell has finished yet, so nothing can be said."
    if not study.of(baseline):
        return f"The baseline {baseline} has no finished cell, so there is nothing to compare with yet."
    if not found:
        return f"Only the baseline {baseline} has finished cells, so there is nothing to compare yet."
    if all(c.seeds.n < 2 for c in found):
        return (
            f"With one seed each, it cannot be said whether {plural(len(found), 'variant')} and {baseline} differ in "
            f"{headline} by more than the noise between trainings."
        )
    apart = [c for c in found if c.verdict.distinguishable]
    if not apart:
        return f"With these seeds and test images, no variant is distinguishable from {baseline} in {headline}."
    groups = {
        f"better than {baseline} by more than noise": [c for c in apart if c.seeds.mean > 0],
        f"worse than {baseline} by more than noise": [c for c in apart if c.seeds.mean < 0],
        f"not distinguishable from {baseline}": [c for c in found if not c.verdict.distinguishable],
    }
    parts = [
        f"{joined(c.variant for c in group)} {'is' if len(group) == 1 else 'are'} {words}"
        for words, group in groups.items()
        if group
    ]
    return f"Measured by {headline}: {'; '.join(parts)}."


def comparisons(study: StudyResults, found: Sequence[Comparison]) -> list[str]:
    """Return how to read the comparisons."""
    if not found:
        return []
    notes = [
        f"Differences are in points of {study.label(study.headline)} and are paired by seed. The interval over seeds "
        "is Student's t interval and shows what other seeds might give. The bootstrap resamples the test images, the "
        "same ones for both variants, and shows what other images might give. A difference counts as more than noise "
        "if both of its p-values are below 0.05 after Holm's correction for the number of variants. The intervals are "
        "not corrected."
    ]
    if any(math.isnan(c.images.p) for c in found):
        notes.append(
            "There is no bootstrap over images where the test set or stored predictions are not on this machine."
        )
    seeds = max(c.seeds.n for c in found)
    if 1 < seeds < 5:
        wide = f"With {plural(seeds, 'seed')} the intervals are wide"
        notes.append(f"{wide}: variants that are not distinguishable may still differ.")
    return notes


def results(study: StudyResults) -> list[str]:
    if any(len(study.of(name)) > 1 for name in study.variants):
        best = [study.label(m) for m in study.metrics if best_variant(study, m)]
        notes = [
            "Each entry is the mean over seeds ± half of its 95 % confidence interval (Student's t).",
            "A bold entry is the best of its column, and the interval of its paired difference to every other variant "
            + (f"excludes zero ({joined(best)})." if best else "excludes zero. No entry is bold here."),
        ]
    else:
        notes = ["There is one seed per variant, hence there are no intervals, and no entry is bold."]
    sets = list(dict.fromkeys(name for cell in study.finished for name in cell.test_sets))
    if len(sets) > 1:
        notes.append(f"The scores are those on {sets[0]}. The file results.csv also has those on {joined(sets[1:])}.")
    missing = [m for m in study.study.metrics if m not in study.metrics]
    if missing:
        notes.append(f"The results do not have these metrics: {joined(map(study.label, missing))}.")
    return notes


def costs(study: StudyResults) -> list[str]:
    sizes = joined("×".join(map(str, c["size"])) for c in study.costs.values() if "size" in c)
    counted = (
        "Parameters and GFLOPs (multiply-adds) are those of the whole detector, for one image of "
        f"{sizes} pixels (height × width)."
    )
    speed = _speed(study) if study.speed else ["The speed has not been measured yet."]
    return [counted, *speed] if study.costs else speed


def cost_warnings(study: StudyResults) -> list[str]:
    """Return what a reader must know before looking at the times."""
    speed = study.speed
    if not speed or speed.get("reliable", True):
        return []
    advice = "Measure them again on an idle machine: python -m sn2fpn.study run … --again speed"
    return [f"The times are not reliable: while they were measured, {_load(speed)}. {advice}."]


def _load(speed: Mapping[str, Any]) -> str:
    return f"other processes used {speed['cores_used_by_others']:g} of {speed.get('cores')} cores"


def _speed(study: StudyResults) -> list[str]:
    speed = study.speed
    state = [
        speed.get("device"),
        plural(speed["threads"], "thread") if speed.get("threads") else "",
        f"images of {'×'.join(map(str, speed['image_size']))} pixels" if speed.get("image_size") else "",
        f"{plural(speed['batch'], 'image')} per training step" if speed.get("batch") else "",
        *(f"{speed[key]:,} {key}" for key in ("proposals", "detections", "rounds") if speed.get(key)),
    ]
    notes = [
        "Times are medians over the rounds of one run, in which all variants took turns in one process and did the "
        f"same work ({joined(state)}). The latency is the time to detect objects in one image. Ratios to "
        f"{study.baseline} are in brackets. The peak memory is what a process that runs one variant alone allocates on "
        "a GPU, or by how much it grows on a CPU."
    ]
    if "cores_used_by_others" in speed and speed.get("reliable", True):
        notes.append(f"Meanwhile {_load(speed)}.")
    made_up = [name for name, v in speed.get("variants", {}).items() if v.get("weights") == "made up"]
    if made_up:
        notes.append(f"These variants had no trained weights and were timed with made-up ones: {joined(made_up)}.")
    return notes


SIZES = (
    "The sizes are those of COCO: small objects have an area below 32² pixels, and large objects have an area of at "
    "least 96² pixels. AP is the average precision, and AR the recall of all detections of an image, as the mean over "
    "IoU thresholds. Bars are 95 % intervals over seeds, where there is more than one seed."
)
CURVES = "Lines are means over seeds. Bands reach from the lowest to the highest seed. Losses are smoothed."


def classes(study: StudyResults) -> list[str]:
    return [
        f"Entries are points of AP above (blue) or below (orange) {study.baseline}, paired by seed, ± half of the "
        "95 % interval where there is more than one seed. Many classes are compared at once, so single classes may "
        "stand out by chance."
    ]


def samples(study: StudyResults, shown: Sequence[SampleRow], test_set: TestSet | None, trouble: str) -> list[str]:
    """Return how the samples were chosen, or the `trouble` for which there are none."""
    if not shown or test_set is None:
        return [f"There are no pictures: {trouble}"]
    seeds = joined(cells[0].seed for name in study.variants if (cells := study.of(name)))
    return [
        f"The same {len(shown)} of the {len(test_set.records):,} test images are shown for all variants. They are "
        f"evenly spread over the test set and not chosen by their results. The detections are those of seed {seeds} "
        f"with a score of at least {SCORE_THRESHOLD:g}. Where none has, the best few are drawn in gray, and the "
        "picture says so."
    ]


def tuning(study: StudyResults) -> list[str]:
    """Return how the tuned settings were found, and which variants might need a wider range."""
    sets, seed = joined(study.study.tune_sets), study.study.tune_seed
    notes = [
        f"Every variant was trained once, with seed {seed}, for each of the same values, and scored on {sets}. Its "
        "cells use the best value, which is bold. The test data took no part in the choice."
    ]
    if settings := study.study.tune_set:
        notes.append(f"These trainings had {joined(f'{key} {value}' for key, value in settings.items())}.")
    edge = [choice.variant for choice in study.tuning if choice.at_the_end]
    if edge:
        notes.append(
            f"The best value lies at the end of the range for {joined(edge)}, so a wider range may give better ones."
        )
    return notes


CONTRAST = [
    "These test images were chosen because the F1 scores of the two variants differ most on them, so they do not show "
    "how the variants compare in general. A detection counts if its score reaches the threshold at which the variant's "
    "F1 score on all images is best. Green boxes are hits (IoU of at least 0.5), orange boxes are false positives, and "
    "red boxes are objects that were not found. F1 scores are means over seeds; the boxes are those of the first seed."
]


def features(study: StudyResults) -> list[str]:
    found = study.features
    where = f" on {found['images']} images of {found['set']}" if {"images", "set"} <= found.keys() else ""
    return [
        f"The measures say where each level's feature maps respond before and after fusion{where}. "
        "They are defined in docs/features.md."
    ]


def fairness(study: StudyResults) -> str:
    if any(cell.identity.get("fingerprint") for cell in study.finished):
        return (
            "Everything except the pyramid's own weights and what the axes change should be equal between the "
            "variants of a seed. The fingerprints of what each cell started from are compared: weights, random "
            "numbers, the first training batches and the configuration."
        )
    return (
        "The cells have no fingerprints, so it is not known whether weights, data order and augmentation were equal "
        "between the variants."
    )
