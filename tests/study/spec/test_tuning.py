"""Tests of TUNE: the study that tries values, the choice among them, and the mistakes that are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sn2fpn.errors import UserError
from sn2fpn.study.folder import CellFolder
from sn2fpn.study.measure.results import tuning_scores
from sn2fpn.study.spec.check import check_study
from sn2fpn.study.spec.study import Study
from sn2fpn.study.spec.tuning import choose, tuning_cells, tuning_study

WriteStudy = Callable[..., Path]
TUNE = {"TUNE": {"SOLVER.BASE_LR": [0.01, 0.02, 0.04]}, "TUNE_SETS": ["tiny_study_train"], "TUNE_SEED": 9}


def test_every_variant_tries_the_same_values_on_the_tuning_set_alone(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(write_study(**TUNE))
    check_study(study, tmp_path)
    tuning = tuning_study(study)
    assert [c.name for c in tuning.cells] == [
        f"{v}-BASE_LR={rate}/seed9" for v in ("fpn", "sni") for rate in ("0.01", "0.02", "0.04")
    ]
    configs = [tuning.config(c.variant, c.seed) for c in tuning.cells]
    assert [c.SOLVER.BASE_LR for c in configs] == [0.01, 0.02, 0.04] * 2
    assert {tuple(c.DATASETS.TEST) for c in configs} == {("tiny_study_train",)}
    tuning.save(tmp_path / "tuning.yaml")
    assert [c.name for c in Study.load(tmp_path / "tuning.yaml").cells] == [c.name for c in tuning.cells]


def test_the_best_value_of_each_variant_is_chosen(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(write_study(**TUNE))
    scores = {"fpn-BASE_LR=0.01": 3.0, "fpn-BASE_LR=0.02": 5.0, "fpn-BASE_LR=0.04": 5.0, "sni-BASE_LR=0.01": 9.0}
    scores["sni-BASE_LR=0.02"] = 8.0
    (fpn,) = choose(study, scores)  # sni has not been tried with all values
    assert (fpn.variant, fpn.best, fpn.keys, fpn.at_the_end) == ("fpn", "BASE_LR=0.02", {"SOLVER.BASE_LR": 0.02}, False)
    assert "5.00 with BASE_LR=0.02" in fpn.sentence and "end of the range" not in fpn.sentence
    fpn, sni = choose(study, scores, complete=False)
    assert sni.at_the_end and "a wider one may be better" in sni.sentence
    tuned = Study.load(write_study(**TUNE, TUNED={"fpn": fpn.keys}))
    assert {cell.variant.axes["pyramid"] for cell in tuning_cells(tuned)} == {"sni"}  # the value for fpn is given
    rates = {v.name: tuned.config(v, 1).SOLVER.BASE_LR for v in tuned.variants}
    assert rates == {"fpn": 0.02, "sni": study.config(study.variants[1], 1).SOLVER.BASE_LR}
    tuned.save(tmp_path / "study.yaml")
    assert replace(Study.load(tmp_path / "study.yaml"), path=tuned.path) == tuned


def test_numbers_that_yaml_takes_for_texts(write_study: WriteStudy) -> None:
    study = Study.load(write_study(**TUNE | {"TUNE": {"SOLVER.BASE_LR": ["1e-3", "2E-3"]}}))
    assert study.tune == {"SOLVER.BASE_LR": [0.001, 0.002]}
    (fpn,) = choose(study, {"fpn-BASE_LR=0.001": 1.0, "fpn-BASE_LR=0.002": 2.0})
    assert fpn.at_the_end
    with pytest.raises(UserError, match="two or more different values"):
        Study.load(write_study(**TUNE | {"TUNE": {"SOLVER.BASE_LR": ["1e-3", 0.001]}}))


def test_equal_scores_are_said_to_decide_nothing(write_study: WriteStudy) -> None:
    study = Study.load(write_study(**TUNE))
    (fpn,) = choose(study, {f"fpn-BASE_LR={rate}": 0.0 for rate in ("0.01", "0.02", "0.04")})
    assert fpn.best == "BASE_LR=0.01" and fpn.sentence.endswith(
        "all values have the same score, so the first one is taken"
    )


def test_several_tuning_sets_decide_together(write_study: WriteStudy, tmp_path: Path) -> None:
    tuning = tuning_study(Study.load(write_study(**TUNE)))
    for name, scores in (("fpn-BASE_LR=0.01", (30.0, 10.0)), ("fpn-BASE_LR=0.02", (29.9, 40.0))):
        cell = next(cell for cell in tuning.cells if cell.variant.name == name)
        results = {f"set{i}": {"bbox": {"AP": score}} for i, score in enumerate(scores)}
        place = CellFolder(tmp_path / "tuning", cell)
        place.save_result({"iterations": 1, "results": results})
        assert place.status().note == ", ".join(f"{score:.1f}" for score in scores)
    found = tuning_scores(tuning, tmp_path / "tuning")
    assert found == pytest.approx({"fpn-BASE_LR=0.01": 20.0, "fpn-BASE_LR=0.02": 34.95})


def test_a_study_of_one_variant_is_tuned(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(write_study(**TUNE, AXES={"pyramid": ["sni"]}, BASELINE=None))
    tuning_study(study).save(tmp_path / "tuning.yaml")
    for tuning in (tuning_study(study), Study.load(tmp_path / "tuning.yaml")):
        assert [v.name for v in tuning.variants] == [f"sni-BASE_LR={rate}" for rate in ("0.01", "0.02", "0.04")]
    (choice,) = choose(study, {"sni-BASE_LR=0.01": 1.0, "sni-BASE_LR=0.02": 2.0, "sni-BASE_LR=0.04": 1.0})
    assert (choice.best, list(choice.scores)) == ("BASE_LR=0.02", ["BASE_LR=0.01", "BASE_LR=0.02", "BASE_LR=0.04"])


def test_the_trainings_that_try_values_may_be_shorter(write_study: WriteStudy, tmp_path: Path) -> None:
    study = Study.load(write_study(**TUNE, TUNE_SET={"SOLVER": {"MAX_ITER": 7}}))
    study.save(tmp_path / "study.yaml")
    for one in (study, Study.load(tmp_path / "study.yaml")):
        tuning = tuning_study(one)
        configs = [tuning.config(c.variant, c.seed) for c in tuning.cells]
        assert {c.SOLVER.MAX_ITER for c in configs} == {7} and one.config(one.variants[0], 1).SOLVER.MAX_ITER != 7
    scores = {v.name: 1.0 for v in tuning.variants}
    assert choose(study, scores)[0].keys == {"SOLVER.BASE_LR": 0.01}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TUNE": {"SOLVER.BASE_LR": 0.1}}, "TUNE.SOLVER.BASE_LR: expected a list of two or more different values"),
        ({"TUNE": {"SOLVER.BASE_LR": [0.1, 0.1]}}, "two or more different values"),
        ({"TUNE_SETS": None}, "TUNE is given without TUNE_SETS"),
        ({"TUNE_SETS": ["tiny_study_val"]}, "TUNE_SETS: tiny_study_val is also in DATASETS.TEST"),
        ({"TUNE_SETS": ["tiny_study_val[:1]"]}, r"tiny_study_val\[:1\] shares images with tiny_study_val in DATASETS"),
        (
            {"AXES": {"lr": {"low": {"SOLVER.BASE_LR": 0.1}, "high": None}}, "BASELINE": {"lr": "high"}},
            "TUNE: SOLVER.BASE_LR is set by AXES.lr, too",
        ),
        ({"TUNE": {"SOLVER.BASE_LRR": [1.0, 2.0]}}, "BASE_LRR.*did you mean.*BASE_LR"),
        ({"TUNE": {"SOLVER.STEPS": [[1], [2]]}}, "cannot be the name of a folder"),
        ({"TUNE_SET": {"SOLVER.BASE_LR": 1}}, "TUNE_SET: SOLVER.BASE_LR is set by TUNE, too"),
        ({"TUNE_SET": {"MODEL.BACKBONE.NAME": "x"}}, "TUNE_SET: MODEL.BACKBONE.NAME is set by AXES.pyramid, too"),
        ({"TUNE": None, "TUNE_SETS": None, "TUNE_SET": {"SOLVER.MAX_ITER": 9}}, "TUNE_SET is given without TUNE"),
        ({"TUNED": {"spn": {}}}, "TUNED: unknown variant 'spn'; did you mean"),
        ({"TUNED": {"sni": {"SOLVER.BASE_LR": "fast"}}}, "TUNED.sni: SOLVER.BASE_LR expects a number"),
        ({"AXES": {"tuned": {"a": None}}, "BASELINE": None}, "AXES.tuned: this name is taken"),
    ],
)
def test_mistakes_are_named(write_study: WriteStudy, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_study(Study.load(write_study(**TUNE | changes)), tmp_path)
