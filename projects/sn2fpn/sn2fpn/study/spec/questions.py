"""QUESTIONS of a study file: what the study wants to know, so that its report can answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UserError, did_you_mean

__all__ = ["MEASURES", "Question", "read_questions"]

MEASURES = ("coarse_share", "localisation", "localisation_before", "agreement", "agreement_inside", "agreement_outside")
"""The measures of feature maps (docs/features.md) that a question may relate to the scores."""

_KEYS = {"ASK": str, "COMPARE": list, "AGAINST": str, "MEASURES": list, "MERGED_WITH": str}


@dataclass(frozen=True)
class Question:
    """A question that the report answers.

    Attributes:
        text: the question.
        compare: the variants that are compared with `against`; a question without them is about `measures`.
        against: a variant.
        measures: the measures of feature maps whose order over the variants is compared with that of the scores.
        merged_with: the name of another study that has some of these variants; the question can be answered after both
            studies have been merged. It is "" for a question that needs no other study.
    """

    text: str
    compare: tuple[str, ...] = ()
    against: str = ""
    measures: tuple[str, ...] = ()
    merged_with: str = ""

    def entry(self) -> dict[str, Any]:
        """Return the entry of the study file."""
        values = {
            "ASK": self.text,
            "COMPARE": list(self.compare),
            "AGAINST": self.against,
            "MEASURES": list(self.measures),
            "MERGED_WITH": self.merged_with,
        }
        return {key: value for key, value in values.items() if value}


def read_questions(
    entries: Sequence[Mapping[Any, Any]], variants: Sequence[str], baseline: str, where: str
) -> tuple[Question, ...]:
    """Return the questions of a study file; a UserError about one of them begins with `where`.

    A question with MERGED_WITH may name variants that the study does not have, as long as it does not have all of them.
    """
    return tuple(_read(entry, variants, baseline, f"{where}[{i}]") for i, entry in enumerate(entries))


def _read(entry: Mapping[Any, Any], variants: Sequence[str], baseline: str, where: str) -> Question:
    for key, value in entry.items():
        if key not in _KEYS:
            raise UserError(f"{where}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
        if not isinstance(value, _KEYS[key]) or not value:
            kind = "a text" if _KEYS[key] is str else "a list of names"
            raise UserError(f"{where}: {key}: expected {kind}, found {value!r}")
    if "ASK" not in entry or ("COMPARE" in entry) == ("MEASURES" in entry):
        raise UserError(f"{where}: expected ASK with either COMPARE or MEASURES, found {', '.join(map(str, entry))}")
    if "MERGED_WITH" in entry and "COMPARE" not in entry:
        raise UserError(f"{where}: MERGED_WITH: only a question with COMPARE can need variants of another study")
    against = entry.get("AGAINST", baseline) if "COMPARE" in entry else ""
    names = [("COMPARE", name, variants) for name in entry.get("COMPARE", ())]
    names += [("AGAINST", against, variants)] if against else []
    names += [("MEASURES", name, MEASURES) for name in entry.get("MEASURES", ())]
    unknown = [(key, name, choices) for key, name, choices in names if name not in choices]
    for key, name, choices in unknown if "MERGED_WITH" not in entry else ():
        raise UserError(f"{where}: {key}: unknown name {name!r}{did_you_mean(str(name), choices)}")
    if against in entry.get("COMPARE", ()):
        raise UserError(f"{where}: COMPARE: {against!r} cannot be compared with itself")
    other = entry.get("MERGED_WITH", "") if unknown else ""
    return Question(entry["ASK"], tuple(entry.get("COMPARE", ())), against, tuple(entry.get("MEASURES", ())), other)
