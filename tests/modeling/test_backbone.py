"""Test that fresh weights outside the pyramid are equal under different pyramids."""

from __future__ import annotations

import torch

from sn2fpn.config import get_cfg
from sn2fpn.modeling import build_model
from sn2fpn.pyramids import PYRAMIDS


def fresh_weights(overrides: list) -> dict[str, torch.Tensor]:
    cfg = get_cfg()
    cfg.merge_from_file("configs/quick/Base-Shapes.yaml")
    cfg.merge_from_list(overrides)
    torch.manual_seed(3)
    return build_model(cfg).state_dict() | {"drawn afterwards": torch.rand(4)}


def test_weights_outside_the_pyramid_do_not_depend_on_it() -> None:
    expected = fresh_weights(["MODEL.BACKBONE.NAME", "build_sn2_fpn_backbone"])
    assert not torch.equal(expected["backbone.fpn_output2.weight"], expected["backbone.fpn_output3.weight"])
    for name in PYRAMIDS:
        found = fresh_weights(["MODEL.BACKBONE.NAME", f"build_sn2_{name}_backbone"])
        compared = [k for k in expected if k.startswith("backbone.bottom_up") or not k.startswith("backbone.")]
        assert len(compared) > 100
        assert all(torch.equal(found[k], expected[k]) for k in compared), name


def test_heads_do_not_depend_on_the_trunks_options() -> None:
    expected = fresh_weights([])
    found = fresh_weights(["MODEL.ESD.ENABLED", True])
    compared = [k for k in expected if not k.startswith("backbone.bottom_up")]
    assert set(compared) < set(found) and all(torch.equal(found[k], expected[k]) for k in compared)
