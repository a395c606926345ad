"""Tests of evaluations during a run: what shipped configurations do, and a best metric that a run does not give."""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.engine import run
from sn2fpn.engine.best_model import BestModel, missing
from sn2fpn.engine.lazy import LazyRecipe
from sn2fpn.engine.preflight import check_recipe
from sn2fpn.engine.recipe import CfgRecipe
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.evaluation import COCOEvaluator

_CONFIGS = Path(__file__).parents[2] / "configs"
_STUDIED = "Base-Photos.yaml"  # cells of studies are evaluated once
_OTHER = "detectron2_mask_rcnn_sni.py"  # belongs to Detectron2's own program
MakeCfg = Callable[..., CfgNode]
_PICTURES = pytest.mark.pictures  # with and without an evaluation, which gives pictures too


@pytest.mark.parametrize("path", sorted(_CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_evaluated_on_the_way(path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    if path.name == _STUDIED:
        assert cfg.TEST.EVAL_PERIOD == 0 and cfg.TEST.BEST_METRIC == ""
        return
    assert 4 <= cfg.SOLVER.MAX_ITER / cfg.TEST.EVAL_PERIOD <= 27  # a curve, which does not cost much
    assert cfg.SOLVER.MAX_ITER % cfg.TEST.EVAL_PERIOD == 0
    assert cfg.TEST.BEST_METRIC in CfgRecipe(cfg).metrics()


@pytest.mark.parametrize("path", sorted((_CONFIGS / "lazy").glob("*_R50_*.py")), ids=lambda path: path.stem)
def test_shipped_python_configurations_agree(path: Path) -> None:
    recipe = LazyRecipe(str(path))
    assert recipe.options.max_iter / recipe.options.eval_period == 9
    assert recipe.options.best_metric in recipe.metrics()


def test_a_metric_that_only_other_runs_give_is_no_mistake() -> None:
    assert missing("bbox/AP", ["bbox/AP", "bbox/AP50"]) == ""
    words = "the evaluations of this run do not give it, and model_best.pth is not kept; did you mean 'a/bbox/AP'?"
    assert missing("bbox/AP", ["a/bbox/AP", "other/bbox/AP"]) == words
    assert "do not give it" in missing("segm/AP", ["bbox/AP"])
    for metric in ("bbox/AP51", "bbx/AP", "val/total_loss", "a/bbox/AP"):
        with pytest.raises(ArgumentError, match=f"metric: unknown value '{metric}'"):
            missing(metric, ["bbox/AP", "bbox/AP50"])


@pytest.mark.parametrize(
    ("keys", "info", "warning"),
    [
        pytest.param(
            {}, "evaluated every 2 iterations and at the end; model_best.pth is kept by bbox/AP$", "", marks=_PICTURES
        ),
        ({"TEST.EVAL_PERIOD": 0}, "evaluated at the end; model_best.pth is kept by bbox/AP$", ""),
        ({"TEST.BEST_METRIC": ""}, "evaluated every 2 iterations and at the end$", ""),
        (
            {"DATASETS.TEST": ["tiny_val", "tiny_train[:2]"]},
            "evaluated every 2 iterations and at the end$",
            "TEST.BEST_METRIC bbox/AP: the evaluations of this run do not give it.*did you mean 'tiny_val/bbox/AP'",
        ),
        pytest.param(
            {"DATASETS.TEST": []},
            "",
            "DATASETS.TEST is empty: nothing is evaluated, and model_best.pth is not kept",
            marks=_PICTURES,
        ),
        ({"TEST.BEST_METRIC": "segm/AP"}, "", "TEST.BEST_METRIC segm/AP: the evaluations of this run do not give it"),
    ],
)
def test_a_run_says_when_it_is_evaluated_and_what_is_kept(
    keys: dict[str, Any], info: str, warning: str, tiny_cfg: MakeCfg, tmp_path: Path
) -> None:
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 4, "TEST.EVAL_PERIOD": 2} | keys)
    run(cfg, argparse.Namespace(resume=False, eval_only=False, num_gpus=1, num_machines=1))
    lines = (tmp_path / "out/log.txt").read_text().splitlines()
    assert not info or any(re.search(f"INFO: The model is {info}", line) for line in lines)
    found = [line for line in lines if "WARNING" in line and ("model_best" in line or "BEST_METRIC" in line)]
    assert [bool(re.search(warning, line)) for line in found] == ([True] if warning else [])
    assert (tmp_path / "out/model_best.pth").is_file() == (not warning and cfg.TEST.BEST_METRIC != "")
    assert (tmp_path / "out/results.csv").is_file() == bool(cfg.DATASETS.TEST)


def test_evaluations_on_the_way_change_no_number_of_the_training(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    weights = []
    for period in (0, 2):
        keys = {"SEED": 3, "SOLVER.MAX_ITER": 6, "TEST.EVAL_PERIOD": period, "OUTPUT_DIR": str(tmp_path / str(period))}
        run(tiny_cfg(keys), argparse.Namespace(resume=False, eval_only=False, num_gpus=1, num_machines=1))
        weights.append(torch.load(tmp_path / str(period) / "model_final.pth", weights_only=True)["model"])
    assert (tmp_path / "2/results.csv").read_text().count("\n") == 4
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_without_a_number_there_is_no_best_model(
    tiny_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, nothing = COCOEvaluator.evaluate, {"bbox": dict.fromkeys(COCOEvaluator.SCORES, math.nan)}
    monkeypatch.setattr(COCOEvaluator, "evaluate", lambda self: evaluate(self) and nothing)
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 2, "TEST.EVAL_PERIOD": 1, "TEST.BEST_METRIC": "bbox/AP"})
    run(cfg, argparse.Namespace(resume=False, eval_only=False, num_gpus=1, num_machines=1))
    log = (tmp_path / "out/log.txt").read_text()
    assert "No evaluation gave a number for bbox/AP, so that there is no model_best.pth" in log
    assert not (tmp_path / "out/model_best.pth").exists() and "The best model is" not in log
    text = (tmp_path / "out/best_metric.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["history"] == [[0, None], [1, None]]
    resumed = BestModel("bbox/AP", tmp_path / "out", start_iter=2)
    assert [n for n, _ in resumed.history] == [0, 1] and math.isnan(resumed.best[1])
    assert resumed.update(2, {"bbox/AP": 1.0})


def test_early_stopping_needs_the_metric(tiny_cfg: MakeCfg) -> None:
    check_recipe(CfgRecipe(tiny_cfg({"TEST.PATIENCE": 2})))
    several = {"TEST.PATIENCE": 2, "DATASETS.TEST": ["tiny_val", "tiny_train[:2]"]}
    with pytest.raises(UserError, match=r"^TEST.PATIENCE needs TEST.BEST_METRIC bbox/AP: .*'tiny_val/bbox/AP'"):
        check_recipe(CfgRecipe(tiny_cfg(several)))


def test_an_unknown_evaluator_is_judged_at_its_first_evaluation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = BestModel("bbox/AP", tmp_path, start_iter=0)
    with caplog.at_level(logging.WARNING, "sn2fpn"):
        assert [best.update(i, {"mine/score": 1.0}) for i in range(2)] == [False, False]
    assert len(caplog.records) == 1 and "bbox/AP: the evaluations of this run do not give it" in caplog.text
    assert best.evaluations_since == 0
    assert best.update(2, {"bbox/AP": 1.0}) and best.best == (2, 1.0)
