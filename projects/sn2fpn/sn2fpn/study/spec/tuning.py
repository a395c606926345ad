"""Fair hyper-parameters: the study that tries the values of TUNE for every variant, and the choice among them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import UserError
from .study import Cell, Study
from .variants import choose_baseline, expand

__all__ = ["AXIS", "TUNING_FOLDER", "Choice", "choose", "tuning_cells", "tuning_study"]

AXIS = "tuned"
"""The axis of a tuning study whose values are the combinations of the values of TUNE."""

TUNING_FOLDER = "tuning"
"""The folder of the tuning study, inside the folder of the study that it serves."""


@dataclass(frozen=True)
class Choice:
    """The scores of the values that were tried for one variant, and the best of them.

    Attributes:
        variant: the name of the variant.
        scores: the headline metric by the name of each combination of values, in the order of the study file.
        best: the name of the best combination.
        keys: the configuration keys that it sets.
        used: the name of the combination that the cells use: the best one, unless the study's TUNED has another; "" if
            TUNED has none of them.
        at_the_end: whether the best of a single key's values is the smallest or the largest that was tried.
    """

    variant: str
    scores: dict[str, float]
    best: str
    keys: dict[str, Any]
    used: str
    at_the_end: bool

    @property
    def sentence(self) -> str:
        """What was tried and chosen, in words."""
        tried = ", ".join(f"{score:.2f} with {name}" for name, score in self.scores.items())
        warning = (
            "; the best value lies at the end of the range, so a wider one may be better" if self.at_the_end else ""
        )
        if len(self.scores) > 1 and len(set(self.scores.values())) == 1:
            warning = "; all values have the same score, so the first one is taken"
        return f"{self.best} is the best of {len(self.scores)} ({tried}){warning}"


def tuning_study(study: Study) -> Study:
    """Return the study that trains every variant once with each combination of the values of TUNE.

    Its cells are evaluated on TUNE_SETS alone, use the seed TUNE_SEED, and set what TUNE_SET says, for example a
    shorter schedule. Every variant gets the same values, so that no variant is tuned longer than another. The names of
    all cells begin with the variant, such as "sni-BASE_LR=0.01/seed0", also where the study has one variant only.

    Raises:
        UserError: a value cannot be part of a folder's name, the study has an axis with the name of the tuned one, or
            TUNE_SET has a key that is tried or that an axis sets.
    """
    varied = dict.fromkeys(study.tune, "TUNE")
    varied |= {key: f"AXES.{axis}" for axis, of_axis in study.axes.items() for keys in of_axis.values() for key in keys}
    for key in study.tune_set:
        if key in varied:
            raise UserError(f"{study.path}: TUNE_SET: {key} is set by {varied[key]}, too; leave it out")
    if AXIS in study.axes:
        raise UserError(f"{study.path}: AXES.{AXIS}: this name is taken by the values of TUNE; choose another one")
    alone = all(len(named) == 1 for named in study.axes.values())  # then the values of TUNE alone make names
    prefix = f"{study.variants[0].name}-" if alone else ""
    axes = study.axes | {AXIS: {prefix + _name(keys): study.tune_set | keys for keys in _combinations(study)}}
    variants = expand(axes, study.exclude, f"{study.path}: TUNE")
    first = choose_baseline(study.baseline.axes, axes, variants, f"{study.path}: TUNE")
    return replace(
        study,
        name=f"{study.name}-tuning",
        settings=study.settings | {"DATASETS.TEST": list(study.tune_sets)},
        axes=axes,
        variants=variants,
        seeds={variant.name: (study.tune_seed,) for variant in variants},
        baseline=first,
        questions=(),
        tune={},
        tune_sets=(),
        tune_set={},
        tuned={},
    )


def tuning_cells(study: Study) -> list[Cell]:
    """Return the cells of the tuning study that the choice needs: those of the variants that TUNED does not name."""
    decided = [variant.axes for variant in study.variants if variant.name in study.tuned]
    return [c for c in tuning_study(study).cells if not any(axes.items() <= c.variant.axes.items() for axes in decided)]


def _combinations(study: Study) -> list[dict[str, Any]]:
    return [dict(zip(study.tune, values)) for values in itertools.product(*study.tune.values())]


def _name(keys: Mapping[str, Any]) -> str:
    """Return a name for a combination, such as "BASE_LR=0.01", that can be part of a folder's name."""
    return "+".join(f"{key.rpartition('.')[2]}={value}" for key, value in keys.items())


def choose(study: Study, scores: Mapping[str, float], complete: bool = True) -> list[Choice]:
    """Choose the best values for each variant; the first of equals wins.

    Args:
        study: the study with TUNE.
        scores: the headline metric by the name of each variant of its tuning study.
        complete: leave out variants of which a combination has no score yet.
    """
    values, choices = {_name(keys): keys for keys in _combinations(study)}, []
    for variant in study.variants:
        known = {value: scores[name] for value in values if (name := f"{variant.name}-{value}") in scores}
        if known and (len(known) == len(values) or not complete):
            best = max(known, key=known.__getitem__)
            at_the_end = _at_the_end(values[best], [values[value] for value in known])
            given = study.tuned.get(variant.name, values[best])
            used = next((value for value in known if values[value].items() <= given.items()), "")
            choices.append(Choice(variant.name, known, best, values[best], used, at_the_end))
    return choices


def _at_the_end(best: Mapping[str, Any], combinations: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a value is the smallest or the largest of at least two numbers that were tried."""
    for key, value in best.items():
        tried = list(dict.fromkeys(keys[key] for keys in combinations))
        numbers = [v for v in tried if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == len(tried) > 1 and value in (min(numbers), max(numbers)):
            return True
    return False
