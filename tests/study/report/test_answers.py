"""Tests of the answers to a study's questions: verdicts, the seeds that would tell, and the mistakes in QUESTIONS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fabricated_study import fabricate
from scipy import stats

from sn2fpn.errors import UserError
from sn2fpn.study.measure.results import load_results
from sn2fpn.study.report.answers import answer_questions, rank_correlation, seeds_to_tell
from sn2fpn.study.report.comparison import compare
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
    (folder / "features.json").write_text(json.dumps({"images": 4, "set": "x", "variants": levels}))
    return folder


def test_answers(study: Path) -> None:
    results = load_results(study)
    helps, worse, both, elsewhere, measures, unmeasured = answer_questions(results, open_test_set(results))
    gain = np.mean(list(results.values("sni", "bbox/AP").values())) - np.mean(
        list(results.values("fpn", "bbox/AP").values())
    )
    assert helps.short == f"The variant sni is better than fpn by {gain:.2f} AP."
    assert any(s.startswith("By object size: small +") for s in helps.details)
    conclusions = {c.variant: c.verdict.text for c in compare(results, open_test_set(results))}
    assert conclusions["sni"] in helps.details[0]  # with the same correction
    assert any("latency 1.04×" in s for s in helps.details)  # 0.052 s and 0.050 s
    assert worse.short == "The study cannot tell whether ihp is better or worse than sni."
    assert both.short == (
        f"The variant fpn is worse than sni by {gain:.2f} AP. "
        "The study cannot tell whether ihp is better or worse than sni."
    )
    assert elsewhere.short.endswith("which can be answered after merging with peers.") and not elsewhere.details
    assert any("four of five studies would find a difference of 1 point with" in s for s in worse.details)
    assert (
        measures.short == "The study cannot tell whether coarse_share goes with AP."
        and "over 3 variants" in measures.details[0]
    )
    assert unmeasured.short == (
        "Fewer than three variants with a score have agreement_inside and agreement_outside, which is too few to tell."
    )
    page, text = write_report(study), study / "report/report.md"
    assert "Where two variants differ most" in page.read_text() and (study / "report/figures/sni_and_fpn.jpg").is_file()
    assert "Does SNI help?" in page.read_text() and "sni is better than fpn" in text.read_text()


@pytest.mark.parametrize(("difference", "spread"), [(1.0, 0.5), (0.5, 1.0), (2.0, 0.3)])
def test_seeds_to_tell_is_the_power_of_the_paired_test(difference: float, spread: float) -> None:
    n = seeds_to_tell(difference, spread)
    assert n is not None
    rng = np.random.default_rng(0)
    found = [
        np.mean(stats.ttest_1samp(rng.normal(difference, spread, (4000, seeds)), 0, axis=1).pvalue < 0.05)
        for seeds in (n, max(2, n - 1))
    ]
    assert found[0] > 0.78 and (n == 2 or found[1] < 0.82)


def test_seeds_to_tell_at_the_limits() -> None:
    assert seeds_to_tell(1.0, 0.0) == 2
    assert seeds_to_tell(0.01, 1.0) is None


def test_rank_correlation() -> None:
    rising = [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0), (5.0, 50.0)]
    assert rank_correlation(rising) == pytest.approx((1.0, 2 / 120))
    assert rank_correlation([(a, -b) for a, b in rising])[0] == pytest.approx(-1)
    assert rank_correlation([(1.0, b) for _, b in rising]) == (0.0, 1.0)
    many = [(float(i), float(i)) for i in range(12)]
    assert rank_correlation(many)[1] < 0.001


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
