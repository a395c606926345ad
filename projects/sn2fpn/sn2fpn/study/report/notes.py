"""The words of the report: sentences on what was done and what follows from it, and how to read each section."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ...errors import counted
from ..measure.power import resamples_for
from ..measure.results import StudyResults
from .comparison import Comparison, best_variant
from .content import joined, listed
from .samples import SCORE_THRESHOLD, SampleRow, TestSet


def lead(study: StudyResults) -> str:
    trained, named = counted(len(study.variants), "variant"), listed(study.variants)
    names = ". They are listed under Results." if named == trained else f": {named}."
    counts = sorted({len(seeds) for seeds in study.study.seeds.values()})
    seeds = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return f"This study trains {trained} in the same way with {seeds} each{names} Scores are in percent."


def absent(study: StudyResults) -> str:
    return (
        f"{len(study.absent)} of {counted(len(study.cells), 'cell')} gave no result. All numbers below come from the "
        "finished cells. Differences are taken between seeds that both variants have finished."
    )


def absent_groups(study: StudyResults) -> list[tuple[str, str]]:
    """Return (cells, why) of the cells without a result, where those with the same reason stand together."""
    groups: dict[str, list[str]] = {}
    for cell in study.absent:
        why = f"{cell.status.state} — {cell.note}" if cell.note else str(cell.status.state)
        groups.setdefault(why, []).append(cell.cell.name)
    return [(joined(names), why) for why, names in groups.items()]


def comparisons(study: StudyResults, found: Sequence[Comparison]) -> list[str]:
    """Return how to read the comparisons."""
    if not found:
        return []
    seeds, resamples = max(c.seeds.n for c in found), resamples_for(len(found))
    over_seeds = (
        "The interval over seeds is Student's t interval and shows where the mean over many seeds may lie. "
        * (seeds > 1)
    )
    notes = [
        f"Differences are in points of {study.label(study.headline)} and are paired by seed. {over_seeds}The interval "
        "over test images is a bootstrap, which resamples the same images for both variants, and shows what the same "
        f"trainings might give on other images; with its {resamples:,} resamples, no p-value is below "
        f"{2 / (resamples + 1):.1g}. A difference counts as more than noise if the larger of its p-values over seeds "
        "and over test images is below 0.05 after Holm's correction for the number of variants. The intervals are not "
        "corrected."
    ]
    if any(question.compare and question.against != study.baseline for question in study.study.questions):
        notes.append(
            "The answer to a question about other variants than the baseline is corrected for the variants that the "
            "question names."
        )
    if any(math.isnan(c.images.p) for c in found):
        notes.append(
            "Test images could not be resampled where the test set or the stored predictions are not on this machine, "
            "or where there are fewer than two images."
        )
    if 1 < seeds < 5:
        wide = f"The intervals over {counted(seeds, 'seed')} are wide"
        notes.append(f"{wide}, so a variant may differ from the baseline although this cannot be told from noise.")
    return notes


def results(study: StudyResults, found: Sequence[Comparison]) -> list[str]:
    if any(len(study.of(name)) > 1 for name in study.variants):
        best = [study.label(m) for m in study.metrics if best_variant(study, m, found)]
        notes = [
            "Each entry is the mean over seeds ± half of its 95 % confidence interval (Student's t).",
            "An entry is bold if it is the best of its column and the intervals of its paired differences to all other "
            f"variants exclude zero; for {study.label(study.headline)} the conclusions must agree. "
            + (f"This is so for {listed(best, 'metric')}." if best else "No entry is bold here."),
        ]
    else:
        notes = ["No variant has more than one finished seed, so there are no intervals and no entry is bold."]
    sets = list(dict.fromkeys(name for cell in study.finished for name in cell.test_sets))
    if len(sets) > 1:
        others = listed(sets[1:], "other set")
        notes.append(f"The scores are those on {sets[0]}. The file results.csv also has those on {others}.")
    if silent := [cell.cell.name for cell in study.silent(study.headline)]:
        trainings = "training" if len(silent) == 1 else "trainings"
        notes.append(f"The {trainings} {joined(silent)} detected nothing, which counts as 0.")
    if any(study.of(v) and not study.values(v, m) for v in study.variants for m in study.metrics):
        notes.append("A dash beside finished seeds is a score that the evaluation did not give.")
    missing = [m for m in study.study.metrics if m not in study.metrics]
    if missing:
        notes.append(f"The results do not have these metrics: {joined(map(study.label, missing))}.")
    return notes


_SIZE_LIMITS_PX = (32, 96)


def sizes(test_set: TestSet | None) -> list[str]:
    """Return what the sizes are, and how many objects of the test set have each."""
    small, large = _SIZE_LIMITS_PX
    note = (
        f"The limits are those of COCO, in pixels of the data set's images: small objects have an area of at most "
        f"{small}², medium ones of {small}² to {large}², and large ones of at least {large}². AP is the average "
        "precision, and AR the recall of all detections of an image, as the mean over IoU thresholds. Lines are 95 % "
        "intervals over seeds, where there is more than one seed."
    )
    if test_set is None:
        return [note]
    areas, limits = np.array(test_set.areas()), (0, small**2, large**2, np.inf)
    counts = [np.count_nonzero((areas >= low) & (areas <= high)) for low, high in itertools.pairwise(limits)]
    parts = [f"{count:,} {size}" for count, size in zip(counts, ("small", "medium", "large"))]
    return [f"{note} The test set has {', '.join(parts[:2])} and {parts[2]} objects."]


def curves(study: StudyResults) -> list[str]:
    """Return how to read the curves, and by the fingerprints, whether noise cancels in the differences of losses."""
    note = "Lines are means over seeds. Bands reach from the lowest to the highest seed. Losses are smoothed."
    orders: dict[int, list[str | None]] = {}
    for cell in study.finished:
        orders.setdefault(cell.seed, []).append(cell.identity.get("fingerprint", {}).get("data order"))
    shared = [of_seed for of_seed in orders.values() if len(of_seed) > 1]
    if not shared:
        return [note]
    if any(len({*of_seed} - {None}) > 1 for of_seed in shared):
        noise = ". By their fingerprints, these did not all see the same images in the same order, so noise remains."
    elif any(None in of_seed for of_seed in shared):
        noise = (
            ". Not all of them have fingerprints, so it is not known whether they saw the same images in the same "
            "order, as they must for the noise to cancel."
        )
    else:
        noise = ", which see the same images in the same order, so that most of the noise cancels."
    return [f"{note} Differences of losses are taken between variants of the same seed{noise}"]


def classes(study: StudyResults, metric: str) -> list[str]:
    """Return how to read the differences by class in a metric."""
    return [
        f"Entries are points of {metric} above (+) or below (−) {study.baseline}, paired by seed, ± half of the 95 % "
        "interval where there is more than one seed. Arrows are darker for larger differences. Many classes are "
        "compared at once, so single classes may stand out by chance."
    ]


def samples(study: StudyResults, shown: Sequence[SampleRow], test_set: TestSet | None, trouble: str) -> list[str]:
    """Return how the samples were chosen, or the `trouble` for which there are none."""
    if not shown or test_set is None:
        return [f"There are no pictures: {trouble.rstrip('.')}."]
    seeds = joined(cells[0].seed for name in study.variants if (cells := study.of(name)))
    return [
        f"The same {len(shown)} of the {len(test_set.records):,} test images are shown for all variants. They are "
        f"evenly spread over the test set and not chosen by their results. The detections are those of seed {seeds} "
        f"with a score of at least {SCORE_THRESHOLD:g}. Where no detection reaches it, the best few are drawn in gray, "
        "and the picture says so."
    ]


def tuning(study: StudyResults) -> list[str]:
    """Return how the tuned settings were found, and which variants might need a wider range."""
    sets, seed = joined(study.study.tune_sets), study.study.tune_seed
    same = len({tuple(choice.scores) for choice in study.tuning}) == 1
    values = "for each of the same values" if same else "for each value that has a score in its row"
    tuned = [choice.variant for choice in study.tuning]
    each = "Every variant" if len(tuned) == len(study.variants) else f"{'Each of ' * (len(tuned) > 1)}{listed(tuned)}"
    best = all(choice.used == choice.best for choice in study.tuning)
    use = "Its cells use the best value, which is bold." if best else "The value that its cells use is bold."
    notes = [
        f"{each} was trained once, with seed {seed}, {values}, and scored on {sets}. {use} The test data took no part "
        "in the choice."
    ]
    if given := [name for name in study.variants if study.study.tuned.get(name) and name not in tuned]:
        notes.append(f"The study file gave the values of {joined(given)}, for which no other values were tried.")
    if untuned := [name for name in study.variants if name not in {*tuned, *given}]:
        verb = "was" if len(untuned) == 1 else "were"
        notes.append(f"{listed(untuned)} {verb} not tuned: no values were tried, and the study file gives none.")
    if settings := study.study.tune_set:
        changed = joined(f"{key} {value}" for key, value in settings.items())
        notes.append(f"These trainings differed from those of the cells in {changed}.")
    edge = [choice.variant for choice in study.tuning if choice.at_the_end]
    if edge:
        notes.append(
            f"The best value of {listed(edge)} lies at the end of the range, so a wider range may have a better one."
        )
    return notes


def tuning_warnings(study: StudyResults) -> list[str]:
    """Name the variants whose cells do not use their best value."""
    return [
        f"The cells of {choice.variant} do not use its best value, {choice.best}, because TUNED in the study file has "
        + (f"{choice.used}." if choice.used else "none of the values that were tried.")
        for choice in study.tuning
        if choice.used != choice.best
    ]


CONTRAST = [
    "These test images were chosen because the F1 scores of the two variants differ most on them, so they do not show "
    "how the variants compare in general. A detection counts if its score reaches the threshold at which the variant's "
    "F1 score on all images is best. Green boxes are hits (IoU of at least 0.5), orange boxes are false positives, and "
    "red boxes are objects that were not found. F1 scores are means over seeds; the boxes are those of the first seed."
]


def features(study: StudyResults) -> list[str]:
    found = study.features
    where = f" on {found['images']} images of {found['set']}" if {"images", "set"} <= found.keys() else ""
    seeds: dict[int, list[str]] = {}
    for name, seed in found.get("seeds", {}).items():
        seeds.setdefault(seed, []).append(name)
    several = "; ".join(f"seed {seed} for {', '.join(names)}" for seed, names in seeds.items())
    of = f" The weights are those of {several if len(seeds) > 1 else f'seed {next(iter(seeds))}'}." if seeds else ""
    return [
        "Localisation is the chance that of two pixels, one inside the level's boxes and one outside, the one inside "
        "has more energy (0.5 by chance). It is measured on the trunk's map before fusion and on the pyramid's map "
        "after it. The coarse share is the part of a map that comes from coarser levels. Agreement is the cosine "
        "between that part and the rest, over the whole map, inside the boxes and outside. The boxes are those that "
        f"the RoI pooler reads from the level{where}.{of} The page docs/features.md of the documentation defines all "
        "of them."
    ]


def fairness(study: StudyResults) -> str:
    if any(cell.identity.get("fingerprint") for cell in study.finished):
        return (
            "Everything except the pyramid's own weights, what the axes change and what was tuned should be equal "
            "between the variants of a seed. The fingerprints of what each cell started from are compared: weights, "
            "random numbers, the first training batches and the configuration. The file cell.json of each cell holds "
            "them."
        )
    return (
        "The cells have no fingerprints, so it is not known whether weights, data order and augmentation were equal "
        "between the variants."
    )
