"""The cost of a study's variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_study import SmallStudy, SmallVariant
from torch import Tensor

from sn2fpn.errors import UserError
from sn2fpn.modeling import build_model
from sn2fpn.modeling.analysis import analyze
from sn2fpn.pyramids import FPN, PYRAMIDS, register_pyramid
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


def test_nothing_is_computed(tmp_path: Path) -> None:
    """The maps of one image would take terabytes."""
    side = 320_000
    study = SmallStudy({"INPUT.MIN_SIZE_TEST": side, "INPUT.MAX_SIZE_TEST": side})
    (small, large) = (measure_costs(s, tmp_path)["ihp"]["flops"]["pyramid"] for s in (SmallStudy(), study))
    assert large == pytest.approx(small * side**2 / (64 * 96), rel=0.01)


class _Looks(FPN):
    """A pyramid that looks at the numbers of its maps, which the meta device does not have."""

    def fuse(self, maps: list[Tensor]) -> list[Tensor]:
        assert float(maps[0].abs().max()) >= 0
        return super().fuse(maps)


def test_a_module_that_looks_at_numbers_is_counted_with_them(tmp_path: Path) -> None:
    register_pyramid("looks")(_Looks)
    try:
        variants = (SmallVariant("looks", {"MODEL.BACKBONE.NAME": "build_sn2_looks_backbone"}),)
        found = measure_costs(SmallStudy(variants=variants), tmp_path)["looks"]
    finally:
        PYRAMIDS.remove("looks")
    plain = measure_costs(SmallStudy(), tmp_path)["fpn"]
    assert found["activations"] == plain["activations"] and found["parameters"] == plain["parameters"]
    assert 0 <= plain["flops"]["pyramid"] - found["flops"]["pyramid"] < 0.001 * sum(plain["flops"].values())


def test_a_variant_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    for keys, words in (
        ({"INPUT.MIN_SIZE_TEST": 0}, "variant 'odd'.*INPUT.MIN_SIZE_TEST 0"),
        ({"MODEL.BACKBONE.NAME": "build_sn2_fpm_backbone"}, "variant 'odd'.*did you mean"),
    ):
        with pytest.raises(UserError, match=words):
            measure_costs(SmallStudy(variants=(SmallVariant("odd", keys),)), tmp_path)
    assert not (tmp_path / "costs.json").exists()
