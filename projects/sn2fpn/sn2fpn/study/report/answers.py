"""The answers to the study's questions, from what its cells have measured; "cannot tell" is an answer, too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from ...errors import counted
from ..measure.results import StudyResults
from ..measure.statistics import ALPHA
from ..spec.questions import Question
from .comparison import Comparison, compare, difference
from .content import listed, number
from .samples import TestSet

__all__ = ["Answer", "answer_questions", "rank_correlation", "seeds_to_tell"]

_POWER = 0.8  # the share of studies that would find a difference of this size
_MOST_SEEDS = 1000
_SIZES = {"small": "APs", "medium": "APm", "large": "APl"}
_COSTS = {
    "parameters": "parameters",
    "gflops": "GFLOPs",
    "latency_ms": "latency",
    "train_images_per_s": "training speed",
}


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
    found = [c for c in compare(results, test_set, question.against, family) if c.variant in question.compare]
    if not found:
        return Answer(question.text, "This has not been measured yet.", [])
    details = [sentence for c in found for sentence in _details(results, c, question.against)]
    return Answer(question.text, _verdict(results, found, question.against), details)


def _verdict(results: StudyResults, found: Sequence[Comparison], against: str) -> str:
    """Return a sentence on each variant that differs from `against`, and one on all that cannot be told from it."""
    sentences = [
        f"The variant {c.variant} is {'better' if c.seeds.mean > 0 else 'worse'} than {against} by "
        f"{number(abs(c.seeds.mean), 2)} {results.label(results.headline)}."
        for c in found
        if c.verdict.distinguishable
    ]
    if unclear := [c.variant for c in found if not c.verdict.distinguishable]:
        verb = "is" if len(unclear) == 1 else "are"
        sentences.append(f"The study cannot tell whether {listed(unclear)} {verb} better or worse than {against}.")
    return " ".join(sentences)


def _details(results: StudyResults, c: Comparison, against: str) -> list[str]:
    """Return the measured difference, overall and by size, what would tell, and the difference in cost."""
    task = results.headline.rpartition("/")[0]
    sentences = [f"{c.verdict.text} {c.intervals}".strip()]
    by_size = {size: difference(results, c.variant, against, f"{task}/{name}") for size, name in _SIZES.items()}
    known = [
        f"{size} {number(d.mean, 2, '+')}" + (f" ({number(d.low, 2)} … {number(d.high, 2)})" if d.n > 1 else "")
        for size, d in by_size.items()
        if d.n
    ]
    if known:
        sentences.append(f"By object size: {', '.join(known)}.")
    return [*sentences, *_what_would_tell(results, c, against), *_cost(results, c.variant, against)]


def _what_would_tell(results: StudyResults, c: Comparison, against: str) -> list[str]:
    """Return how many seeds would show the measured difference and one of a point, from the measured spread."""
    ours, theirs = (results.values(name, results.headline) for name in (c.variant, against))
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if len(differences) < 2:
        return []
    spread = float(np.std(differences, ddof=1))
    needed = {"1 point": seeds_to_tell(1.0, spread)}
    if not c.verdict.distinguishable and c.seeds.mean:
        needed[f"the measured {number(abs(c.seeds.mean), 2)} points"] = seeds_to_tell(abs(c.seeds.mean), spread)
    parts = [
        f"{size} with {counted(n, 'seed') if n else f'more than {_MOST_SEEDS} seeds'}" for size, n in needed.items()
    ]
    return [
        f"The difference varies by {number(spread, 2)} points (standard deviation) from seed to seed. With this "
        f"spread, four of five studies would find a difference of {' and one of '.join(parts)}."
    ]


def seeds_to_tell(difference: float, spread: float) -> int | None:
    """Return how many paired seeds a two-sided t-test needs to find a difference in four of five studies.

    Args:
        difference: the true mean difference, above 0.
        spread: the standard deviation of the differences between seeds.

    Returns:
        The number of seeds, at least 2; None if more than 1000 are needed.
    """
    if spread == 0:
        return 2
    for n in range(2, _MOST_SEEDS + 1):
        limit = stats.t.ppf(1 - ALPHA / 2, n - 1)
        if stats.nct.sf(limit, n - 1, difference / spread * math.sqrt(n)) >= _POWER:
            return n
    return None


def _cost(results: StudyResults, variant: str, against: str) -> list[str]:
    """Return what a variant costs compared with another one, as far as it was measured."""
    ours, theirs = results.measured(variant), results.measured(against)
    ratios = {words: ours[name] / theirs[name] for name, words in _COSTS.items() if theirs[name]}
    known = [f"{words} {number(ratio, 2)}×" for words, ratio in ratios.items() if math.isfinite(ratio)]
    return [f"Cost of {variant} compared with {against}: {', '.join(known)}."] if known else []


def _about_measures(results: StudyResults, question: Question) -> Answer:
    """Compare the order of the variants by each measure of their feature maps with their order by score."""
    features = results.features.get("variants", {})
    scores = {
        v: fmean(found) for v in results.variants if (found := list(results.values(v, results.headline).values()))
    }
    label, verdicts, details = results.label(results.headline), [], []
    unclear, unknown = [], []  # measures
    for measure in question.measures:
        means = {v: _mean(features[v], measure) for v in scores if v in features}
        pairs = [(value, scores[v]) for v, value in means.items() if value is not None]
        if len(pairs) < 3:
            unknown.append(measure)
            continue
        rho, p = rank_correlation(pairs)
        if p < ALPHA:
            verdicts.append(f"A higher {measure} goes with a {'higher' if rho > 0 else 'lower'} {label}.")
        else:
            unclear.append(measure)
        details.append(
            f"{measure}: the rank correlation with {label} over {len(pairs)} variants is {number(rho, 2, '+')} "
            f"(p = {p:.2g}, exact permutation test)."
        )
    if unclear:
        go = "goes" if len(unclear) == 1 else "go"
        verdicts.append(f"The study cannot tell whether {listed(unclear, 'measure')} {go} with {label}.")
    if unknown:
        those = listed(unknown, "measure")
        verdicts.append(f"Fewer than three variants with a score have {those}, which is too few to tell.")
    return Answer(question.text, " ".join(verdicts), details)


def _mean(levels: dict[str, dict[str, float | None]], measure: str) -> float | None:
    """Return the mean of a measure over the levels that have it."""
    known = [value for level in levels.values() if (value := level.get(measure)) is not None]
    return fmean(known) if known else None


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return Spearman's rank correlation of pairs and its two-sided p-value.

    The p-value is the share of orders of the second values whose correlation is at least as strong; of more than 8
    pairs, 10,000 random orders are taken. It is 1 if all first or all second values are equal.
    """
    a, b = (stats.rankdata(values) for values in zip(*pairs))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0, 1.0
    observed = float(np.corrcoef(a, b)[0, 1])
    if len(pairs) <= 8:
        orders = np.array(list(itertools.permutations(b)))
    else:
        orders = np.random.default_rng(0).permuted(np.tile(b, (10_000, 1)), axis=1)
    centred = orders - orders.mean(axis=1, keepdims=True)
    strengths = centred @ (a - a.mean()) / (np.linalg.norm(centred, axis=1) * np.linalg.norm(a - a.mean()))
    extreme = np.count_nonzero(np.abs(strengths) >= abs(observed) - 1e-9)
    random = len(pairs) > 8  # then the observed order counts as one more
    return observed, (extreme + random) / (len(orders) + random)
