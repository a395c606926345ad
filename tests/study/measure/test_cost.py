"""The cost of a study's variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_study import SmallStudy, SmallVariant

from sn2fpn.errors import UserError
from sn2fpn.modeling import build_model
from sn2fpn.modeling.analysis import analyze
from sn2fpn.study.measure.cost import costs_table, measure_costs


def test_costs_are_those_of_each_variants_model_at_its_test_size(tmp_path: Path) -> None:
    study = SmallStudy()
    costs = measure_costs(study, tmp_path)
    assert json.loads((tmp_path / "costs.json").read_text()) == costs
    for variant in study.variants:
        model = build_model(study.config(variant, 3))
        mine = costs[variant.name]
        assert mine["size"] == [64, 96]
        assert sum(mine["parameters"].values()) == sum(p.numel() for p in model.parameters())
        assert mine["flops"] == analyze(model, (64, 96)).flops
    assert costs["fpn"]["flops"]["trunk"] == costs["ihp"]["flops"]["trunk"] > 0
    rows = costs_table(study)
    assert [r["variant"] for r in rows] == ["fpn", "ihp"] and rows[0]["iterations"] == 4
    assert rows[1]["GFLOPs"] == pytest.approx(sum(costs["ihp"]["flops"].values()) / 1e9)


def test_a_variant_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    for keys, words in (
        ({"INPUT.MIN_SIZE_TEST": 0}, "variant 'odd'.*INPUT.MIN_SIZE_TEST 0"),
        ({"MODEL.BACKBONE.NAME": "build_sn2_fpm_backbone"}, "variant 'odd'.*did you mean"),
    ):
        with pytest.raises(UserError, match=words):
            measure_costs(SmallStudy(variants=(SmallVariant("odd", keys),)), tmp_path)
    assert not (tmp_path / "costs.json").exists()
