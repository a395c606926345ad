"""Tests of our Python configurations with the real Detectron2's LazyConfig, and of SNI in one of its configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sn2fpn.config import LazyConfig, instantiate
from sn2fpn.engine.solver import LRMultiplier
from sn2fpn.pyramids import SNIFPN

pytestmark = pytest.mark.detectron2

pytest.importorskip("detectron2", reason="Detectron2 is not installed")

from detectron2 import model_zoo  # noqa: E402
from detectron2.config import LazyConfig as TheirLazyConfig  # noqa: E402
from detectron2.config import instantiate as their_instantiate  # noqa: E402

_LAZY = Path(__file__).parents[2] / "configs/lazy"
_OURS = sorted(p.name for p in _LAZY.glob("*.py") if not p.name.startswith(("common", "detectron2")))


@pytest.mark.parametrize("name", _OURS)
def test_our_configs_load_and_build_with_their_lazyconfig(name: str, tmp_path: Path) -> None:
    ours, theirs = LazyConfig.load(_LAZY / name), TheirLazyConfig.load(str(_LAZY / name))
    overrides = ["train.max_iter=50", "optimizer.lr=0.01", "lr_multiplier.scheduler.steps=[20,40]"]
    box_heads = [f"box_heads.{n}" for n in range(3)] if name.startswith("cascade") else ["box_head"]
    overrides += [f"model.roi_heads.{head}.fc_dims=[64,64]" for head in box_heads]
    LazyConfig.apply_overrides(ours, overrides)
    TheirLazyConfig.apply_overrides(theirs, overrides)
    models = []
    for build, cfg in ((instantiate, ours), (their_instantiate, theirs)):
        torch.manual_seed(0)
        models.append(build(cfg.model))
        cfg.optimizer.params.model = models[-1]
    states = [model.state_dict() for model in models]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    optimizers = [build(cfg.optimizer) for build, cfg in ((instantiate, ours), (their_instantiate, theirs))]
    assert [g["lr"] for g in optimizers[0].param_groups] == [g["lr"] for g in optimizers[1].param_groups]
    rates = [
        LRMultiplier(o, build(cfg.lr_multiplier), 50).get_lr()
        for o, build, cfg in zip(optimizers, (instantiate, their_instantiate), (ours, theirs))
    ]
    assert rates[0] == rates[1]
    del theirs.optimizer.params.model
    TheirLazyConfig.save(theirs, str(tmp_path / "theirs.yaml"))
    again = instantiate(LazyConfig.load(tmp_path / "theirs.yaml").model)
    assert list(again.state_dict()) == list(states[0])


def test_sni_in_their_mask_rcnn() -> None:
    path = _LAZY / "detectron2_mask_rcnn_sni.py"
    cfg, plain = TheirLazyConfig.load(str(path)), model_zoo.get_config("common/models/mask_rcnn_fpn.py")
    ours = LazyConfig.load(path)
    torch.manual_seed(0)
    model = their_instantiate(cfg.model).eval()
    torch.manual_seed(0)
    again = instantiate(ours.model)
    assert isinstance(model.backbone, SNIFPN) and type(model).__module__.startswith("detectron2")
    theirs = their_instantiate(plain.model).eval()
    assert list(model.state_dict()) == list(theirs.state_dict()) == list(again.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    theirs.load_state_dict(model.state_dict())
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        maps, plain_maps = (m.backbone(m.preprocess_image([{"image": image}]).tensor) for m in (model, theirs))
        assert list(maps) == list(plain_maps) == ["p2", "p3", "p4", "p5", "p6"]
        assert not torch.allclose(maps["p2"], plain_maps["p2"])
        cfg.model.backbone.alpha = 1.0  # without its damping SNI is FPN
        undamped = their_instantiate(cfg.model).eval()
        undamped.load_state_dict(model.state_dict())
        for name, value in undamped.backbone(model.preprocess_image([{"image": image}]).tensor).items():
            torch.testing.assert_close(value, plain_maps[name], rtol=1e-4, atol=1e-4)
        (output,) = model([{"image": image}])
    assert output["instances"].has("pred_masks")
