"""Tests of the choice of the evaluator and of the tables of results."""

from __future__ import annotations

import pytest

from sn2fpn.config import get_cfg
from sn2fpn.errors import UserError
from sn2fpn.evaluation import COCOEvaluator, PascalVOCEvaluator, build_evaluator, copypaste_lines, results_table
from sn2fpn.evaluation.build import score_names

BOX = [100.0, 100.0, 150.0, 150.0]


def test_each_set_has_its_own_metric_and_runs_with_either(register) -> None:
    cfg = get_cfg()
    coco = register({1: []}, ["thing"], evaluator_type="coco")
    voc = register({1: []}, ["thing"], evaluator_type="pascal_voc", year=2007)
    other = register({1: []}, ["thing"])
    kinds = {name: type(build_evaluator(cfg, name)) for name in (coco, voc, other)}
    assert kinds == {coco: COCOEvaluator, voc: PascalVOCEvaluator, other: COCOEvaluator}
    cfg.TEST.EVALUATOR = "coco"
    assert isinstance(build_evaluator(cfg, voc), COCOEvaluator)
    cfg.TEST.EVALUATOR = "voc"
    assert isinstance(build_evaluator(cfg, coco), PascalVOCEvaluator)


def test_a_slice_has_the_metric_of_its_data_set(register) -> None:
    """A slice that has not been read has no metadata of its own."""
    name = f"{register({1: []}, ['thing'], evaluator_type='pascal_voc', year=2007)}[:1]"
    assert score_names(get_cfg(), name) == ["bbox/AP", "bbox/AP50", "bbox/AP75"]
    assert isinstance(build_evaluator(get_cfg(), name), PascalVOCEvaluator)


def test_the_voc_metric_can_be_chosen(register, run) -> None:
    """The detections are right, wrong and right: (6 + 5 * 2/3) / 11 for 11 points, 1/2 + 1/2 * 2/3 for the area."""
    found = {1: [(0, 0.9, BOX), (0, 0.8, [0.0, 0.0, 9.0, 9.0]), (0, 0.7, [300.0, 300.0, 350.0, 350.0])]}
    name = register({1: [(0, BOX), (0, [300.0, 300.0, 350.0, 350.0])]}, ["thing"], year=2007)
    cfg = get_cfg()
    eleven, area = 100 * (6 + 5 * 2 / 3) / 11, 100 * (1 / 2 + 1 / 3)
    for kind, expected in (("voc", eleven), ("voc_11_point", eleven), ("voc_area", area)):
        cfg.TEST.EVALUATOR = kind
        assert run(build_evaluator(cfg, name), found)["AP50"] == pytest.approx(expected)


def test_detections_per_image_is_the_metrics_limit(register, run) -> None:
    name = register({1: [(0, BOX)]}, ["thing"], evaluator_type="coco")
    found = {1: [(0, 0.9, [0.0, 0.0, 50.0, 50.0]), (0, 0.8, BOX)]}
    cfg = get_cfg()
    for limit, ap in ((1, 0.0), (2, 50.0), (-1, 50.0)):
        cfg.TEST.DETECTIONS_PER_IMAGE = limit
        assert run(build_evaluator(cfg, name), found)["AP50"] == pytest.approx(ap)


def test_unknown_metric(register) -> None:
    cfg = get_cfg()
    cfg.TEST.EVALUATOR = "voc_11point"
    with pytest.raises(UserError, match=r"TEST\.EVALUATOR: unknown value 'voc_11point'; did you mean 'voc_11_point'"):
        build_evaluator(cfg, register({1: []}, ["thing"]))


def test_table() -> None:
    scores = {
        "AP": 12.345,
        "AP50": 50.0,
        "APs": float("nan"),
        "AP-cat": 1.0,
        "AP-hair-drier": 2.0,
        "AP-dog": float("nan"),
        "AP50-cat": 9.0,
        "AP50-hair-drier": 8.0,
        "AP50-dog": float("nan"),
    }
    lines = results_table({"bbox": scores}, class_columns=2).splitlines()
    assert [cell.strip() for cell in lines[1].strip("|").split("|")] == ["AP (%)", "AP50 (%)", "APs (%)"]
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == ["12.35", "50.00", "no gt"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[6:]]
    assert rows[0] == ["class", "AP (%)", "AP50 (%)"] * 2
    assert rows[2:] == [["cat", "1.00", "9.00", "dog", "no gt", "no gt"], ["hair-drier", "2.00", "8.00", "", "", ""]]
    assert copypaste_lines({"bbox": {"AP": 12.345, "AP50": 50.0, "AP-cat": 1.0}}) == [
        "copypaste: Task: bbox",
        "copypaste: AP,AP50",
        "copypaste: 12.3450,50.0000",
    ]


def test_only_scores_of_this_package_are_called_percent() -> None:
    results = {"count": {"per_image": 15.375, "AP": 2.0, "per_image-cat": 1.0}, "bbox_TTA": {"AP50": 50.0, "mine": 3.0}}
    lines = results_table(results).splitlines()
    titles = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert titles[1] == ["per_image", "AP"] and titles[6] == ["class", "per_image"] and "15.38" in lines[3]
    assert titles[-3] == ["AP50 (%)", "mine"]
