"""Tests of the answers to a study's questions: verdicts, and the mistakes in QUESTIONS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fabricated_study import fabricate

from sn2fpn.errors import UserError
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.measure.statistics import Bootstrap, Interval, distinguishable
from sn2fpn.study.report import answers
from sn2fpn.study.report.answers import answer_questions
from sn2fpn.study.report.comparison import Comparison, compare
from sn2fpn.study.report.samples import open_test_set
from sn2fpn.study.report.writing import write_report
from sn2fpn.study.spec.study import Study

QUESTIONS = [
    {"ASK": "Does SNI help?", "COMPARE": ["sni"]},
    {"ASK": "Is IHP worse than SNI?", "COMPARE": ["ihp"], "AGAINST": "sni"},
    {"ASK": "Are both better?", "COMPARE": ["fpn", "ihp"], "AGAINST": "sni"},
    {"ASK": "Is BiFPN better?", "COMPARE": ["sni"], "AGAINST": "bifpn", "MERGED_WITH": "peers"},
    {"ASK": "Does misalignment matter?", "MEASURES": ["coarse_share"]},
    {"ASK": "Does agreement matter?", "MEASURES": ["agreement_inside", "agreement_outside"]},
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which sni is clearly better than fpn and ihp is like sni, and features that follow the scores."""
    folder = fabricate(tmp_path_factory.mktemp("answers") / "three", {"fpn": 0.3, "sni": 0.02, "ihp": 0.021})
    content = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(content | {"QUESTIONS": QUESTIONS}))
    levels = {name: {"p2": {"coarse_share": share}} for name, share in (("fpn", 0.5), ("sni", 0.1), ("ihp", 0.2))}
    for name in ("fpn", "sni"):
        levels[name]["p2"]["agreement_inside"] = 0.5
    (folder / "features.json").write_text(json.dumps({"images": 4, "set": "x", "variants": levels}))
    return folder


def test_answers(study: Path) -> None:
    results = load_results(study)
    helps, worse, both, elsewhere, measures, unmeasured = answer_questions(results, open_test_set(results))
    gain = np.mean(list(results.values("sni", "bbox/AP").values())) - np.mean(
        list(results.values("fpn", "bbox/AP").values())
    )
    assert helps.short == f"The variant sni is better than fpn by {gain:.2f} points of AP."
    assert any(s.startswith("The differences of AP by object size are: small +") for s in helps.details)
    conclusions = {c.variant: c.verdict.text for c in compare(results, open_test_set(results))}
    assert conclusions["sni"] in helps.details[0]  # with the same correction
    cost = next(s for s in helps.details if "latency 1.10×" in s)  # 0.055 s and 0.050 s
    assert cost.endswith("not reliable, because other processes used 1.5 of 4 cores while they were measured.")
    assert worse.short == "The study cannot tell whether ihp is better or worse than sni."
    assert both.short == (
        f"The variant fpn is worse than sni by {gain:.2f} points of AP. "
        "The study cannot tell whether ihp is better or worse than sni."
    )
    assert elsewhere.short.endswith("which can be answered after merging with peers.") and not elsewhere.details
    passing = "would pass the test over seeds for a difference of 1 point with"
    assert any(f"four of five studies {passing}" in s for s in worse.details)
    assert any(f"four of five studies with 2 comparisons {passing}" in s for s in helps.details)
    few = r"With a spread in this interval, .* of 1 point with .* seeds.*; 3 seeds are too few to tell the spread"
    assert any(re.search(few, s) for s in worse.details)
    p = compare(results, open_test_set(results), "sni", ["ihp"])[0].images.p
    few = "The test images are too few for the measured difference: its p-value over them alone is"
    assert f"{few} {p:.2g}." in worse.details and p >= 0.05
    assert not any(few in s for s in helps.details)
    assert (
        measures.short == "The study cannot tell whether coarse_share goes with AP."
        and "over 3 variants" in measures.details[0]
        and measures.details[0].endswith("; no order of so few variants could have less than 0.33).")
        and measures.details[1].startswith("The measure of a variant is the mean over its levels")
    )
    assert unmeasured.short == "agreement_inside is known for fpn and sni only. agreement_outside is not known."
    page, text = write_report(study), study / "report/report.md"
    assert "Where two variants differ most" in page.read_text() and (study / "report/figures/sni_and_fpn.jpg").is_file()
    assert "Does SNI help?" in page.read_text() and "sni is better than fpn" in text.read_text()


def test_a_variant_that_could_not_be_resampled_counts_among_the_comparisons(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holm's correction doubles the p-value 0.04 of sni, since that of ihp over test images is not known."""
    found = {
        "sni": (Interval(1, -1, 3, 3, 0.3), Bootstrap(1, 0, 2, 0.04)),
        "ihp": (Interval(2, 1, 3, 3, 0.01), Bootstrap()),
    }
    verdicts = distinguishable(found, "fpn")
    compared = [Comparison(name, *bounds, verdicts[name]) for name, bounds in found.items()]
    monkeypatch.setattr(answers, "compare", lambda *_: compared)
    helps, *_ = answer_questions(load_results(study), None)
    assert "its p-value over them alone is 0.04, and 0.08 after Holm's correction." in " ".join(helps.details)


def test_few_seeds_give_a_range_of_numbers() -> None:
    four = answers._seeds_that_tell([0.1, 0.5, 0.9, 0.5], {"1 point": 1.0}, 1)
    assert four.endswith(
        "With this spread, four of five studies would pass the test over seeds for a difference of "
        "1 point with 4 seeds."
    )
    two = answers._seeds_that_tell([0.0, 0.54], {"1 point": 1.0, "the measured 0.27 points": 0.27}, 1)
    assert two.endswith(
        "(standard deviation; 95 % interval 0.17 … 12.18). With a spread in this interval, four of five studies would "
        "pass the test over seeds for a difference of 1 point with 3 to more than 1000 seeds and for one of the "
        "measured 0.27 points with 6 to more than 1000 seeds; 2 seeds are too few to tell the spread more exactly."
    )


def test_differences_that_do_not_vary_tell_no_number_of_seeds(tmp_path: Path) -> None:
    """The sign test, which judges equal differences, cannot pass with the 2 seeds that a spread of 0 would give."""
    folder = fabricate(tmp_path / "equal", {"fpn": 0.1, "sni": 0.1})
    for path in folder.glob("cells/sni/*/result.json"):
        path.write_text((folder / "cells/fpn" / path.parent.name / path.name).read_text())
    content = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(content | {"QUESTIONS": QUESTIONS[:1]}))
    (answer,) = answer_questions(load_results(folder), None)
    assert answer.details and not any("would pass the test over seeds" in s for s in answer.details)


def test_times_that_are_reliable_have_no_doubt(study: Path) -> None:
    results = load_results(study)
    results.speed["reliable"] = True
    assert "not reliable" not in answers._cost(results, "sni", "fpn")[0]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"ASK": "Why?"}, "expected ASK with either COMPARE or MEASURES"),
        ({"ASK": "Why?", "COMPARE": ["snii"]}, "COMPARE: unknown name 'snii'; did you mean 'sni'"),
        ({"ASK": "Why?", "COMPARE": ["fpn"]}, "'fpn' cannot be compared with itself"),
        ({"ASK": "Why?", "MEASURES": ["share"]}, "MEASURES: unknown name 'share'"),
        (
            {"ASK": "Why?", "MEASURES": ["coarse_share"], "MERGED_WITH": "x"},
            "MERGED_WITH: only a question with COMPARE",
        ),
        ({"ASK": 3, "COMPARE": ["sni"]}, "ASK: expected a text, found 3"),
        ({"ASKED": "Why?"}, "unknown key 'ASKED'; did you mean 'ASK'"),
    ],
)
def test_mistakes_are_named(write_study: Callable[..., Path], entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"QUESTIONS\[0\]: .*{message}"):
        Study.load(write_study(QUESTIONS=[entry]))
