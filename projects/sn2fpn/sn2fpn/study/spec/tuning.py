"""Fair hyper-parameters: the study that tries the values of TUNE for every variant, and the choice among them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import UserError
from .study import Study
from .variants import choose_baseline, expand

__all__ = ["AXIS", "TUNING_FOLDER", "Choice", "choose", "tuning_study"]

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
        best: the name of the chosen combination.
        keys: the configuration keys that it sets.
        at_the_end: whether the best of a single key's values is the smallest or the largest that was tried.
    """

    variant: str
    scores: dict[str, float]
    best: str
    keys: dict[str, Any]
    at_the_end: bool

    @property
    def sentence(self) -> str:
        """What was tried and chosen, in words."""
        tried = ", ".join(f"{score:.2f} with {name}" for name, score in self.scores.items())
        warning = (
            "; the best value lies at the end of the range, so a wider one may be better" if self.at_the_end else ""
        )
        return f"{self.best} is the best of {len(self.scores)} ({tried}){warning}"


def tuning_study(study: Study) -> Study:
    """Return the study that trains every variant once with each combination of the values of TUNE.

    Its cells are evaluated on TUNE_SETS alone, use the seed TUNE_SEED, and set what TUNE_SET says, for example a
    shorter schedule. Every variant gets the same values, so that no variant is tuned longer than another.

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
    axes = study.axes | {AXIS: {_name(keys): study.tune_set | keys for keys in _combinations(study)}}
    variants = expand(axes, study.exclude, f"{study.path}: TUNE")
    first = choose_baseline(study.baseline.axes, axes, variants, f"{study.path}: TUNE")
    return replace(
        study,
        name=f"{study.name}-tuning",
        settings=study.settings | {"DATASETS.TEST": list(study.tune_sets)},
        axes=axes,
        variants=variants,
        seeds=(study.tune_seed,),
        baseline=first,
        questions=(),
        tune={},
        tune_sets=(),
        tune_set={},
        tuned={},
    )


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
    alone = all(len(named) == 1 for named in study.axes.values())  # then only the tuned values make names
    for variant in study.variants:
        tried = {value: value if alone else f"{variant.name}-{value}" for value in values}
        known = {value: scores[name] for value, name in tried.items() if name in scores}
        if known and (len(known) == len(tried) or not complete):
            best = max(known, key=known.__getitem__)
            choices.append(Choice(variant.name, known, best, values[best], _at_the_end(study, values[best])))
    return choices


def _at_the_end(study: Study, keys: Mapping[str, Any]) -> bool:
    """Return whether a value is the smallest or the largest of at least two numbers that were tried."""
    for key, value in keys.items():
        tried = study.tune[key]
        numbers = [v for v in tried if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == len(tried) > 1 and value in (min(numbers), max(numbers)):
            return True
    return False
