"""The answers to the study's questions, from what its cells have measured; "cannot tell" is an answer, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ..measure.power import MOST_SEEDS, seeds_to_tell, spread_interval
from ..measure.results import StudyResults
from ..measure.statistics import ALPHA, RankCorrelation, chance, holm, larger_p, rank_correlation
from ..spec.questions import Question
from .comparison import Comparison, compare, cost_ratio, difference
from .conclusion import without_shared_seed
from .content import listed, number
from .cost_notes import doubt_of_times
from .samples import TestSet

__all__ = ["Answer", "answer_questions"]

_SIZES = {"small": "APs", "medium": "APm", "large": "APl"}
_COSTS = {
    "parameters": "parameters",
    "gflops": "GFLOPs",
    "latency_ms": "latency",
    "train_images_per_s": "training speed",
}
_TIMES = {"latency_ms", "train_images_per_s"}
_SEEDS_FOR_SPREAD = 4  # with three, the upper end of the spread's 95 % interval is six times the estimate, with two 32


@dataclass(frozen=True)
class Answer:
    """A question with its answer.

    Attributes:
        question: the question.
        short: the answer in a sentence or two.
        details: sentences with the numbers behind it.
    """

    question: str
    short: str
    details: list[str]


def answer_questions(results: StudyResults, test_set: TestSet | None) -> list[Answer]:
    """Answer every question of the study; without a test set, images are not resampled."""
    return [
        _about_measures(results, q) if q.measures else _about_variants(results, test_set, q)
        for q in results.study.questions
    ]


def _about_variants(results: StudyResults, test_set: TestSet | None, question: Question) -> Answer:
    if question.merged_with:
        why = "This study does not have all variants of the question"
        return Answer(question.text, f"{why}, which can be answered after merging with {question.merged_with}.", [])
    # Differences to the baseline are corrected for all variants, so that answers and conclusions agree.
    family = None if question.against == results.baseline else question.compare
    compared = compare(results, test_set, question.against, family)
    found = [c for c in compared if c.variant in question.compare]
    missing = _missing(results, [v for v in question.compare if v not in {c.variant for c in found}], question.against)
    if not found:
        return Answer(question.text, missing or "This has not been measured yet.", [])
    details = [sentence for c in found for sentence in _details(results, c, question.against, compared)]
    return Answer(question.text, f"{_verdict(results, found, question.against)} {missing}".strip(), details)


def _missing(results: StudyResults, variants: Sequence[str], against: str) -> str:
    """Return what keeps variants from being compared with `against`; "" if `against` itself has no score."""
    if not results.values(against, results.headline):
        return ""
    absent = [name for name in variants if not results.values(name, results.headline)]
    verb = "has" if len(absent) == 1 else "have"
    sentences = [f"{listed(absent)} {verb} not been measured yet."] if absent else []
    return " ".join(filter(None, [*sentences, without_shared_seed(results, variants, against)]))


def _verdict(results: StudyResults, found: Sequence[Comparison], against: str) -> str:
    """Return a sentence on each variant that differs from `against`, and one on all that cannot be told from it."""
    sentences = [
        f"The variant {c.variant} is {'better' if c.seeds.mean > 0 else 'worse'} than {against} by "
        f"{number(abs(c.seeds.mean), 2)} points of {results.label(results.headline)}."
        for c in found
        if c.verdict.distinguishable
    ]
    if unclear := [c.variant for c in found if not c.verdict.distinguishable]:
        verb = "is" if len(unclear) == 1 else "are"
        sentences.append(f"The study cannot tell whether {listed(unclear)} {verb} better or worse than {against}.")
    return " ".join(sentences)


def _details(results: StudyResults, c: Comparison, against: str, compared: Sequence[Comparison]) -> list[str]:
    """Return the measured difference, overall and by size, what would tell, and the difference in cost.

    `compared` are the differences that the verdict was corrected for.
    """
    task = results.headline.rpartition("/")[0]
    sentences = [f"{c.verdict.text} {c.intervals}".strip()]
    by_size = {size: difference(results, c.variant, against, f"{task}/{name}") for size, name in _SIZES.items()}
    known = [
        f"{size} {number(d.mean, 2, '+')}" + (f" ({number(d.low, 2)} … {number(d.high, 2)})" if d.n > 1 else "")
        for size, d in by_size.items()
        if d.n
    ]
    if known:
        sentences.append(f"The differences of {results.label(f'{task}/AP')} by object size are: {', '.join(known)}.")
    return [*sentences, *_what_would_tell(results, c, against, compared), *_cost(results, c.variant, against)]


def _what_would_tell(results: StudyResults, c: Comparison, against: str, compared: Sequence[Comparison]) -> list[str]:
    """Return how many seeds would show the measured difference and one of a point, and whether the images suffice."""
    ours, theirs = (results.values(name, results.headline) for name in (c.variant, against))
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if len(differences) < 2 or not np.ptp(differences):  # a spread that no power can be computed from
        return []
    sizes, too_few = {"1 point": 1.0}, []
    if not c.verdict.distinguishable and c.seeds.mean:
        size = abs(c.seeds.mean)
        sizes[f"the measured {number(size, 2)} points"] = size
        p_values = [x.images.p if x is c else larger_p(x.seeds, x.images) for x in compared]
        corrected = holm(p_values)[compared.index(c)]
        if corrected >= ALPHA:
            after = f", and {chance(corrected)} after Holm's correction" if len(compared) > 1 else ""
            too_few = [
                "The test images are too few for the measured difference: its p-value over them alone is "
                f"{chance(c.images.p)}{after}."
            ]
    return [_seeds_that_tell(differences, sizes, len(compared)), *too_few]


def _seeds_that_tell(differences: Sequence[float], sizes: Mapping[str, float], comparisons: int) -> str:
    """Return how many seeds would show differences of some sizes, from the differences of the seeds that there are.

    Few seeds hardly show the spread, so that a range of numbers is given, from its interval.
    """
    n, spread = len(differences), float(np.std(differences, ddof=1))
    low, high = spread_interval(spread, n)
    known = n >= _SEEDS_FOR_SPREAD
    parts = []
    for words, size in sizes.items():
        needed = [seeds_to_tell(size, s, ALPHA / comparisons) for s in ([spread] if known else [low, high])]
        numbers = dict.fromkeys(str(found) if found else f"more than {MOST_SEEDS}" for found in needed)
        parts.append(f"{words} with {' to '.join(numbers)} seeds")
    several = f" with {comparisons} comparisons" if comparisons > 1 else ""
    return (
        f"From seed to seed the difference varies by {number(spread, 2)} points (standard deviation; 95 % interval "
        f"{number(low, 2)} … {number(high, 2)}). With {'this spread' if known else 'a spread in this interval'}, four "
        f"of five studies{several} would pass the test over seeds for a difference of {' and for one of '.join(parts)}"
        + ("." if known else f"; {n} seeds are too few to tell the spread more exactly.")
    )


def _cost(results: StudyResults, variant: str, against: str) -> list[str]:
    """Return what a variant costs compared with another one, as far as it was measured, and doubts of the times."""
    ratios = {name: cost_ratio(results, variant, against, name) for name in _COSTS}
    known = {name: f"{_COSTS[name]} {ratio}" for name, ratio in ratios.items() if math.isfinite(ratio.value)}
    if not known:
        return []
    doubt = f" {doubt_of_times(results)}".rstrip() if known.keys() & _TIMES else ""
    return [f"Cost of {variant} compared with {against}: {', '.join(known.values())}.{doubt}"]


def _about_measures(results: StudyResults, question: Question) -> Answer:
    """Compare the order of the variants by each measure of their feature maps with their order by score."""
    features = results.features.get("variants", {})
    scores = {
        v: fmean(found) for v in results.variants if (found := list(results.values(v, results.headline).values()))
    }
    label, verdicts, details = results.label(results.headline), [], []
    unclear: list[str] = []
    unknown: dict[tuple[str, ...], list[str]] = {}  # the variants that have a measure, if these are too few
    correlations: dict[str, RankCorrelation] = {}
    for measure in question.measures:
        means = {v: mean for v in scores if v in features and (mean := _mean(features[v], measure)) is not None}
        if len(means) < 3:
            unknown.setdefault(tuple(means), []).append(measure)
            continue
        found = correlations[measure] = rank_correlation([(value, scores[v]) for v, value in means.items()])
        limit = f"; no order of so few variants could have less than {found.least_p:.2g}" * (found.least_p >= ALPHA)
        details.append(
            f"{measure}: the rank correlation with {label} over {len(means)} variants is {number(found.rho, 2, '+')} "
            f"(permutation test, p = {chance(found.p)}{limit})."
        )
    corrected = dict(zip(correlations, holm([found.p for found in correlations.values()])))
    for measure, found in correlations.items():
        if corrected[measure] < ALPHA:
            verdicts.append(f"A higher {measure} goes with a {'higher' if found.rho > 0 else 'lower'} {label}.")
        else:
            unclear.append(measure)
    if correlations:
        details.append("The measure of a variant is the mean over its levels, weighted by their numbers of boxes.")
    if len(correlations) > 1 and any(found.p < ALPHA for found in correlations.values()):
        after = ", ".join(f"{measure} {chance(p)}" for measure, p in corrected.items())
        details.append(f"After Holm's correction for {len(correlations)} measures the p-values are: {after}.")
    if unclear:
        go = "goes" if len(unclear) == 1 else "go"
        verdicts.append(f"The study cannot tell whether {listed(unclear, 'measure')} {go} with {label}.")
    for variants, measures in unknown.items():
        where = f"known for {listed(variants)} only" if variants else "not known"
        verdicts.append(f"{listed(measures, 'measure')} {'is' if len(measures) == 1 else 'are'} {where}.")
    return Answer(question.text, " ".join(verdicts), details)


def _mean(levels: dict[str, dict[str, float | None]], measure: str) -> float | None:
    """Return the mean of a measure over the levels that have it, weighted by the numbers of their objects."""
    known = {name: value for name, level in levels.items() if (value := level.get(measure)) is not None}
    objects = {name: levels[name].get("boxes") or 0 for name in known}
    if not sum(objects.values()):
        return fmean(known.values()) if known else None
    return fmean(known.values(), objects.values())
