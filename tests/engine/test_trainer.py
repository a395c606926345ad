"""Tests of the training loop: learning, resuming, checkpoints, the moving average, and reasons to stop."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer, native, run
from sn2fpn.engine.best_model import BestModel
from sn2fpn.engine.config import scale_to_world_size
from sn2fpn.engine.hooks import EMA, Hook
from sn2fpn.engine.options import RunOptions
from sn2fpn.engine.testing import validation_losses
from sn2fpn.errors import UserError
from sn2fpn.pyramids import PYRAMIDS

MakeCfg = Callable[..., CfgNode]


def _args(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"resume": False, "eval_only": False, "num_gpus": 1, "num_machines": 1} | changes)


def _losses(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {d["iteration"]: {k: v for k, v in d.items() if "loss" in k} for d in lines if "total_loss" in d}


def _trainer(cfg: CfgNode, resume: bool = False) -> Trainer:
    register_custom(cfg.DATASETS.CUSTOM)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    trainer = Trainer(cfg)
    for hook in trainer.hooks:
        if hasattr(hook, "_period"):
            hook._period = 1  # writes metrics in every iteration
    trainer.resume_or_load(resume)
    return trainer


def _average(trainer: Trainer) -> dict[str, torch.Tensor]:
    (ema,) = (hook for hook in trainer.hooks if isinstance(hook, EMA))
    return ema.average


@pytest.mark.slow
@pytest.mark.pictures
def test_a_run_learns_and_leaves_everything_behind(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg(
        {
            "SOLVER.MAX_ITER": 60,
            "DATALOADER.NUM_WORKERS": 1,
            "SOLVER.CHECKPOINT_PERIOD": 25,
            "TEST.EVAL_PERIOD": 30,
            "SOLVER.CHECKPOINTS_TO_KEEP": 1,
            "TEST.BEST_METRIC": "bbox/AP50",
        }
    )
    results = run(cfg, _args())
    out = Path(cfg.OUTPUT_DIR)
    assert set(results["tiny_val"]["bbox"]) >= {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-circle"}
    names = {p.name for p in out.iterdir()}
    assert {
        "config.yaml",
        "log.txt",
        "metrics.json",
        "model_final.pth",
        "last_checkpoint",
        "model_0000049.pth",
        "model_best.pth",
        "curves.png",
        "predictions.png",
        "inference",
    } <= names
    assert "model_0000024.pth" not in names  # only the newest one is kept
    assert any(n.startswith("events.out.tfevents") for n in names)
    left = {p.name for p in (out / "inference/tiny_val").iterdir()}
    assert left >= {"coco_instances_results.json", "analysis.json", "analysis.png", "best_and_worst.png"}
    losses = _losses(out)
    assert losses[59]["total_loss"] < 0.6 * losses[0]["total_loss"]
    again = run(tiny_cfg({"MODEL.WEIGHTS": str(out / "model_final.pth")}), _args(eval_only=True))
    assert again["tiny_val"]["bbox"] == pytest.approx(results["tiny_val"]["bbox"], nan_ok=True)


@pytest.mark.parametrize(
    "pyramid", [p if p in ("sni", "bifpn") else pytest.param(p, marks=pytest.mark.slow) for p in PYRAMIDS]
)
def test_every_pyramid_learns(pyramid: str, tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg(
        {"MODEL.BACKBONE.NAME": f"build_sn2_{pyramid}_backbone", "DATASETS.TEST": [], "SEED": 1, "SOLVER.MAX_ITER": 12}
    )
    trainer = _trainer(cfg)
    losses: list[float] = []
    trainer.model.register_forward_hook(lambda _, __, out: losses.append(sum(out.values()).item()))
    trainer.train()  # raises an error for a loss that is not finite
    assert sum(losses[-3:]) / 3 < 0.85 * losses[0]
    for name, value in trainer.model.backbone.named_parameters():  # a step may be too small to change the weight
        assert value.isfinite().all() and trainer.optimizer.state[value]["momentum_buffer"].any(), name


@pytest.mark.parametrize(
    ("seed", "optimizer"), [(3, "SGD"), (3, "AdamW"), pytest.param(-1, "SGD", marks=pytest.mark.slow)]
)
def test_resume_continues_as_if_never_interrupted(tiny_cfg: MakeCfg, tmp_path: Path, seed: int, optimizer: str) -> None:
    keys = {"SEED": seed, "SOLVER.MAX_ITER": 8, "DATASETS.TEST": [], "SOLVER.EMA.ENABLED": True}
    keys |= {"SOLVER.OPTIMIZER": optimizer}
    straight = _trainer(tiny_cfg(keys | {"OUTPUT_DIR": str(tmp_path / "straight"), "SOLVER.CHECKPOINT_PERIOD": 4}))
    straight.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("model_0000003.pth", "last_checkpoint"):  # as a run leaves them that ends after iteration 4
        (cut / name).write_bytes((tmp_path / "straight" / name).read_bytes())
    (cut / "last_checkpoint").write_text("model_0000003.pth")
    resumed = _trainer(tiny_cfg(keys | {"OUTPUT_DIR": str(cut)}), resume=True)
    assert resumed.start_iter == 4
    resumed.train()
    whole, tail = _losses(tmp_path / "straight"), _losses(cut)
    assert sorted(tail) == [4, 5, 6, 7]
    # the metrics are medians of windows, which differ; the weights are compared bit by bit
    for a, b in ((straight.model.state_dict(), resumed.model.state_dict()), (_average(straight), _average(resumed))):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert straight.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]
    assert set(whole[7]) == set(tail[7])


def test_a_run_is_not_resumed_with_another_optimizer(tiny_cfg: MakeCfg) -> None:
    keys = {"SOLVER.MAX_ITER": 2, "DATASETS.TEST": []}
    _trainer(tiny_cfg(keys)).train()
    words = "state of another optimizer: SOLVER.OPTIMIZER was SGD and is AdamW. Resume with that of the training"
    with pytest.raises(UserError, match=words):
        _trainer(tiny_cfg(keys | {"SOLVER.MAX_ITER": 4, "SOLVER.OPTIMIZER": "AdamW"}), resume=True)


def test_resume_without_a_checkpoint_starts_afresh(tiny_cfg: MakeCfg) -> None:
    trainer = _trainer(tiny_cfg(), resume=True)
    assert trainer.start_iter == 0


def test_the_pictures_of_a_run_show_its_moving_average(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.5)
    ema.average["weight"].fill_(7.0)
    before = model.weight.item()
    run = SimpleNamespace(model=model, hooks=[ema], resume_or_load=lambda resume: None, train=dict)
    recipe = SimpleNamespace(options=RunOptions(ema=True), dump=str, announce=list, check_data=lambda eval_only: None)
    drawn = []
    monkeypatch.setattr(native, "default_setup", lambda *_: None)
    monkeypatch.setattr(native, "Trainer", lambda recipe: run)
    monkeypatch.setattr(native, "_draw", lambda recipe, model, *_: drawn.append(model.weight.item()))
    native._run(recipe, _args(), "", [])
    assert drawn == [7.0] and model.weight.item() == before


def test_the_learning_rate_in_the_metrics_is_that_of_most_parameters(tiny_cfg: MakeCfg) -> None:
    trainer = _trainer(tiny_cfg({"SOLVER.BIAS_LR_FACTOR": 3.0, "SOLVER.WARMUP_ITERS": 0, "SOLVER.BASE_LR": 0.01}))
    trainer._gradients.add = lambda batch, scaler: ({"loss_a": torch.zeros(())}, {})
    trainer.run_step(iter([[]]))
    assert trainer.storage.smoothed()["lr"] == pytest.approx(0.01)


def test_divergence_stops_with_the_facts_and_keeps_the_last_checkpoint(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg(
        {
            "SOLVER.MAX_ITER": 50,
            "SOLVER.CHECKPOINT_PERIOD": 2,
            "DATASETS.TEST": [],
            "SOLVER.CLIP_GRADIENTS.ENABLED": False,
        }
    )
    trainer = _trainer(cfg)

    class Spoil(Hook):
        def after_step(self) -> None:
            if self.trainer.iter == 2:
                with torch.no_grad():
                    self.trainer.model.roi_heads.box_predictor.cls_score.weight.fill_(float("nan"))

    trainer.hooks.append(Spoil())
    with pytest.raises(UserError) as e:
        trainer.train()
    good = Path(cfg.OUTPUT_DIR) / "model_0000001.pth"
    for word in ("iteration 4", "loss_cls", "nan", "images", str(good), "SOLVER.BASE_LR"):
        assert word in str(e.value)
    state = torch.load(good, weights_only=True)["model"]
    assert all(v.isfinite().all() for v in state.values())
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == good.name


@pytest.mark.parametrize("spoilt", [3, 4])
def test_weights_that_are_not_finite_are_never_saved(tiny_cfg: MakeCfg, spoilt: int) -> None:
    """A step may spoil the weights although its losses were finite, just before a checkpoint or at the very end."""
    trainer = _trainer(tiny_cfg({"SOLVER.MAX_ITER": 5, "SOLVER.CHECKPOINT_PERIOD": 2, "DATASETS.TEST": []}))
    weight = trainer.model.roi_heads.box_predictor.cls_score.weight

    class Spoil(Hook):
        def after_step(self) -> None:
            if self.trainer.iter == spoilt:
                weight.data[0, 0] = float("inf")

    trainer.hooks.insert(0, Spoil())
    with pytest.raises(UserError) as e:
        trainer.train()
    out = Path(trainer.options.output_dir)
    good = f"model_{1 if spoilt == 3 else 3:07d}.pth"
    for word in (f"iteration {spoilt + 1}", "roi_heads.box_predictor.cls_score.weight", str(out / good), "BASE_LR"):
        assert word in str(e.value)
    assert (out / "last_checkpoint").read_text() == good
    assert not (out / "model_final.pth").exists() and sorted(out.glob("model_*.pth"))[-1].name == good


def test_validation_losses_leave_no_trace(tiny_cfg: MakeCfg) -> None:
    trainer = _trainer(tiny_cfg())
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    first = validation_losses(trainer.recipe.test_sets(), trainer.model, trainer.options)
    assert first == validation_losses(trainer.recipe.test_sets(), trainer.model, trainer.options)
    assert first["val/total_loss"] == pytest.approx(sum(v for k, v in first.items() if k != "val/total_loss"))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())


def test_ema_is_the_moving_average_and_steps_aside() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        ema = EMA(model, decay=0.9)
        expected = 1.0
        for w in (2.0, 3.0):
            model.weight.fill_(w)
            ema.after_step()
            expected = 0.9 * expected + 0.1 * w
    with ema.swapped_in():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0


def test_ema_is_evaluated_and_saved(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg({"SOLVER.EMA.ENABLED": True, "SOLVER.EMA.DECAY": 0.5, "SOLVER.MAX_ITER": 3})
    results = run(cfg, _args())
    file = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    saved = torch.load(file, weights_only=True)
    assert any(not torch.equal(saved["ema"][k], v) for k, v in saved["model"].items())
    again = run(tiny_cfg({"SOLVER.EMA.ENABLED": True, "MODEL.WEIGHTS": file}), _args(eval_only=True))
    assert again["tiny_val"]["bbox"] == pytest.approx(results["tiny_val"]["bbox"], nan_ok=True)


def test_best_model_knows_direction_history_and_nan(tmp_path: Path) -> None:
    nan = float("nan")
    best = BestModel("bbox/AP", tmp_path, start_iter=0)
    assert [best.update(i, {"bbox/AP": v}) for i, v in enumerate([nan, 1.0, 3.0, 2.0, nan])] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert best.best == (2, 3.0)
    assert best.evaluations_since == 2
    resumed = BestModel("bbox/AP", tmp_path, start_iter=3)  # later entries are dropped
    assert resumed.evaluations_since == 0
    assert not resumed.update(3, {"bbox/AP": 2.5})
    abandoned = BestModel("bbox/AP", tmp_path, start_iter=1)  # model_best.pth still holds the model of iteration 2
    assert not abandoned.update(1, {"bbox/AP": 2.0}) and abandoned.best == (2, 3.0)
    abandoned = BestModel("bbox/AP", tmp_path, start_iter=1)  # also after a second crash
    assert not abandoned.update(1, {"bbox/AP": 1.0}) and abandoned.update(2, {"bbox/AP": 3.0})  # the same model again
    assert not abandoned.update(3, {"bbox/AP": 2.0}) and abandoned.evaluations_since == 1
    assert [n for n, _ in abandoned.history] == [0, 1, 2, 3]
    loss = BestModel("val/total_loss", tmp_path, start_iter=0)
    assert [loss.update(i, {"val/total_loss": v}) for i, v in enumerate([2.0, 1.0, 1.5])] == [True, True, False]
    named = BestModel("blossom_val/bbox/AP", tmp_path, start_iter=0)  # a data set is no loss
    assert [named.update(i, {"blossom_val/bbox/AP": v}) for i, v in enumerate([2.0, 1.0, 3.0])] == [True, False, True]
    with pytest.raises(UserError, match=r"^metric: unknown value 'bbox/AP5'; did you mean 'bbox/AP50'"):
        BestModel("bbox/AP5", tmp_path, 0).update(0, {"bbox/AP": 1.0, "bbox/AP50": 1.0})


def test_early_stopping(tiny_cfg: MakeCfg, caplog: pytest.LogCaptureFixture) -> None:
    cfg = tiny_cfg(
        {
            "SOLVER.MAX_ITER": 20,
            "TEST.EVAL_PERIOD": 1,
            "TEST.BEST_METRIC": "bbox/AP",
            "TEST.PATIENCE": 2,
            "SOLVER.BASE_LR": 1e-9,
        }
    )
    trainer = _trainer(cfg)
    trainer.train()
    assert trainer.iter < 19
    assert (Path(cfg.OUTPUT_DIR) / "model_final.pth").is_file()
    for _ in range(2):
        resumed = _trainer(cfg, resume=True)
        assert "tiny_val" in resumed.train() and resumed.iter == trainer.iter  # evaluated, not trained


@pytest.mark.parametrize("enabled", [True, False])
def test_mixed_precision_trains_and_evaluates(tiny_cfg: MakeCfg, enabled: bool) -> None:
    keys = {"SOLVER.AMP.ENABLED": enabled, "SOLVER.MAX_ITER": 3, "TEST.VAL_LOSS": True}
    trainer = _trainer(tiny_cfg(keys))
    seen = set()
    pyramid = trainer.model.backbone
    pyramid.register_forward_hook(lambda *_: seen.add((pyramid.training, torch.is_autocast_enabled("cpu"))))
    trainer.train()
    assert seen == {(True, enabled), (False, enabled)}
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_step_with_overflown_gradients_leaves_weights_and_momentum(optimizer: str, tiny_cfg: MakeCfg) -> None:
    keys = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "float16", "SOLVER.OPTIMIZER": optimizer}
    trainer = _trainer(tiny_cfg(keys | {"DATASETS.TEST": (), "SOLVER.BASE_LR": 1.0, "SOLVER.WARMUP_ITERS": 0}))
    weights = list(trainer.model.parameters())
    before = [p.detach().clone() for p in weights]
    trainer._scaler.scale(torch.ones(()))  # makes the scale
    for gradient in (torch.inf, 1.0):
        for p in weights:
            p.grad = torch.full_like(p, gradient)
        trainer._step_optimizer()
        moved = [not torch.equal(p, old) for p, old in zip(weights, before)]
        assert not any(moved) and not trainer.optimizer.state if gradient == torch.inf else all(moved)
    assert all(t.isfinite().all() for s in trainer.optimizer.state.values() for t in s.values() if t is not None)
    assert all(p.isfinite().all() for p in weights)


def test_schedule_scales_with_the_number_of_processes(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg(
        {
            "SOLVER.REFERENCE_WORLD_SIZE": 8,
            "SOLVER.IMS_PER_BATCH": 16,
            "SOLVER.BASE_LR": 0.02,
            "SOLVER.MAX_ITER": 90000,
            "SOLVER.STEPS": (60000, 80000),
            "SOLVER.WARMUP_ITERS": 1000,
            "SOLVER.CHECKPOINT_PERIOD": 5000,
            "TEST.EVAL_PERIOD": 5000,
        }
    )
    s = scale_to_world_size(cfg, 2).SOLVER
    assert (s.IMS_PER_BATCH, s.BASE_LR, s.MAX_ITER, s.STEPS, s.WARMUP_ITERS, s.CHECKPOINT_PERIOD) == (
        4,
        0.005,
        360000,
        (240000, 320000),
        4000,
        20000,
    )
    assert cfg.SOLVER.IMS_PER_BATCH == 16
