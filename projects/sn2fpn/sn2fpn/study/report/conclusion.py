"""The conclusion of a report in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..measure.results import StudyResults
from .comparison import Comparison
from .content import listed

__all__ = ["summary", "without_shared_seed"]


def summary(study: StudyResults, found: Sequence[Comparison]) -> str:
    """Return the conclusion in a few sentences."""
    headline, baseline = study.label(study.headline), study.baseline
    if not study.finished:
        return "No cell has finished yet, so nothing can be said."
    if not study.of(baseline):
        return f"The baseline {baseline} has no finished cell, so there is nothing to compare with yet."
    unscored = [v for v in study.variants if study.of(v) and not study.values(v, study.headline)]
    if baseline in unscored:
        return f"The evaluation of the baseline {baseline} gave no {headline}, so there is nothing to compare with."
    rest = f" The evaluation of {listed(unscored)} gave no {headline}." if unscored else ""
    rest += f" {apart}" if (apart := without_shared_seed(study, study.variants, baseline)) else ""
    if not found:
        if apart:
            return rest.strip()
        return f"Only the baseline {baseline} has a score, so there is nothing to compare yet.{rest}"
    return _conclusion(found, headline, baseline) + rest


def without_shared_seed(study: StudyResults, variants: Sequence[str], against: str) -> str:
    """Return a sentence on the variants that have a score, but none for a seed of `against`; "" if there are none."""
    known = study.values(against, study.headline)
    scores = {name: study.values(name, study.headline) for name in variants if name != against}
    apart = [name for name, found in scores.items() if found and known and not found.keys() & known.keys()]
    has = "has" if len(apart) == 1 else "have"
    return f"{listed(apart)} {has} no seed in common with {against} and cannot be compared with it." if apart else ""


def _conclusion(found: Sequence[Comparison], headline: str, baseline: str) -> str:
    if all(c.seeds.n < 2 for c in found):
        return (
            f"It is unknown which variants are better or worse than the baseline {baseline}. They were compared on one "
            f"seed, and one seed does not show how much {headline} varies from training to training."
        )
    apart = [c for c in found if c.verdict.distinguishable]
    unknown = [c for c in found if math.isnan(c.verdict.p)]  # one seed, or test images that cannot be resampled
    unclear = [c for c in found if not c.verdict.distinguishable and c not in unknown]
    if len(unclear) == len(found):
        return f"No variant differs from the baseline {baseline} in {headline} by more than noise."
    than = f"{headline} than the baseline {baseline} by more than noise."
    sentences = [
        _sentence([c for c in apart if c.seeds.mean > 0], "has", "have", f"a higher {than}"),
        _sentence([c for c in apart if c.seeds.mean < 0], "has", "have", f"a lower {than}"),
        _sentence(unclear, "does", "do", f"not differ from {baseline} by more than noise."),
        f"It is unknown whether {listed([c.variant for c in unknown])} differ{'s' * (len(unknown) == 1)} from "
        f"{baseline} by more than noise." * bool(unknown),
    ]
    return " ".join(filter(None, sentences))


def _sentence(group: Sequence[Comparison], of_one: str, of_many: str, rest: str) -> str:
    """Return a sentence on some variants, "" if there are none."""
    return f"{listed([c.variant for c in group])} {of_one if len(group) == 1 else of_many} {rest}" if group else ""
