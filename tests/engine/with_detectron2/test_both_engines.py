"""Tests of both engines on one run: equal losses and scores, and exchanged checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.data import build_train_loader, register_custom
from sn2fpn.engine import native
from sn2fpn.engine.trainer import Trainer as NativeTrainer
from sn2fpn.pyramids import PYRAMIDS

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2


from their_trainer import Command, their_trainer  # noqa: E402

from engine_comparison import compute_exactly, to_detectron2  # noqa: E402
from sn2fpn.engine import detectron2 as engine  # noqa: E402


class _Losses:
    """The losses of a model in each step."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.steps: list[dict[str, float]] = []
        model.register_forward_hook(self._keep)

    def _keep(self, _: Any, __: Any, output: Any) -> None:
        if isinstance(output, dict):
            self.steps.append({k: v.item() for k, v in output.items()})


def _pair(args: Any, batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> tuple[NativeTrainer, Any]:
    """Return both trainers with the same weights and the same batches."""
    cfg = native.load_config(args)
    ours = NativeTrainer(cfg)
    ours.recipe.build_train_loader = lambda *_: batches
    monkeypatch.setattr(engine.Trainer, "build_train_loader", lambda *_: [to_detectron2(b) for b in batches])
    theirs = their_trainer(args)
    theirs.model.load_state_dict(ours.model.state_dict())
    return ours, theirs


def _losses_of_both(args: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, float]], ...]:
    """Return the losses of each step in the native engine and in Detectron2, for the same weights and batches."""
    cfg = native.load_config(args)
    register_custom(cfg.DATASETS.CUSTOM)
    stream = iter(build_train_loader(cfg, seed=3))
    pair = _pair(args, [next(stream) for _ in range(cfg.SOLVER.MAX_ITER)], monkeypatch)
    for trainer in pair:
        compute_exactly(trainer.model)
    found = []
    for trainer in pair:
        losses = _Losses(trainer.model)
        torch.manual_seed(5)
        trainer.train()
        found.append(losses.steps)
    return tuple(found)


@pytest.mark.parametrize("name", [*PYRAMIDS, "sni_esd"])
def test_both_engines_train_with_the_same_losses(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses agree for some iterations; later the last digit of a score selects another proposal.

    Where this happens too early with the weights of the first seed, the second seed is tried.
    """
    iterations, limit = (20, 1e-3) if name in ("fpn", "sni", "ihp", "sni_esd") else (8, 1e-5)
    masks = name == "sni"
    keys = {"MODEL__ESD__ENABLED": True} if name == "sni_esd" else {}
    keys["MODEL__BACKBONE__NAME"] = f"build_sn2_{name.removesuffix('_esd')}_backbone"
    for seed in (4, 3):
        args = command(
            "fpn",
            SOLVER__MAX_ITER=iterations,
            SOLVER__WARMUP_ITERS=100,
            DATASETS__TEST=(),
            SEED=seed,
            MODEL__MASK_ON=masks,
            **keys,
        )
        ours, theirs = _losses_of_both(args, monkeypatch)
        assert len(theirs) == iterations and len(theirs[0]) == (5 if masks else 4)
        assert sum(theirs[-1].values()) < sum(theirs[0].values())
        worst = max(abs(a[k] - b[k]) / b[k] for a, b in zip(ours, theirs, strict=True) for k in b)
        if worst < limit:
            break
    assert worst < limit


def test_a_run_changes_engines_twice(command: Command, tmp_path: Path) -> None:
    """Momentum, schedule and iteration survive a change from native to Detectron2 and back."""
    keys = dict(DATASETS__TEST=(), SOLVER__MAX_ITER=6)
    args = command("sni", **keys)
    native.run(native.load_config(args), args)
    before = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)

    args = command("sni", "--resume", **keys)
    trainer = their_trainer(args)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 6
    assert trainer.scheduler.last_epoch == 6
    state = trainer.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in before["model"].items())
    names = {p: n for n, p in trainer.model.named_parameters()}
    ours = NativeTrainer(native.load_config(args))
    ours.resume_or_load(resume=True)
    momentum = {n: ours.optimizer.state[p].get("momentum_buffer") for n, p in ours.model.named_parameters()}
    for group in trainer._trainer.optimizer.param_groups:
        for p in group["params"]:
            assert torch.equal(trainer._trainer.optimizer.state[p]["momentum_buffer"], momentum[names[p]]), names[p]

    args = command("sni", "--resume", DATASETS__TEST=(), SOLVER__MAX_ITER=9)
    engine.run(engine.load_config(args), args, "Engine: detectron2")
    assert "Engine: detectron2" in (tmp_path / "out" / "log.txt").read_text()
    after = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert after["iteration"] == 8
    args = command("sni", "--resume", DATASETS__TEST=(), SOLVER__MAX_ITER=12)
    ours = NativeTrainer(native.load_config(args))
    ours.resume_or_load(resume=True)
    assert ours.start_iter == 9 and ours.scheduler.last_epoch == 9
    assert all(torch.equal(ours.model.state_dict()[k], v) for k, v in after["model"].items() if "num_batches" not in k)
    ours.train()
    assert torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)["iteration"] == 11


@pytest.mark.parametrize("backbone", ["build_sn2_fpn_backbone", "build_resnet_fpn_backbone"])
def test_optimizers_list_their_parameters_alike(backbone: str, command: Command) -> None:
    """The state of an optimizer depends on the order of its parameters."""
    args = command("fpn", MODEL__BACKBONE__NAME=backbone, MODEL__MASK_ON=True)
    orders = []
    for trainer in (NativeTrainer(native.load_config(args)), their_trainer(args)):
        names = {p: n for n, p in trainer.model.named_parameters()}
        optimizer = getattr(trainer, "optimizer", None) or trainer._trainer.optimizer
        orders.append([[names[p] for p in group["params"]] for group in optimizer.param_groups])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("masks", [False, True])
def test_the_same_scores_in_both_engines(masks: bool, command: Command, tmp_path: Path) -> None:
    """A checkpoint has the same scores in both engines."""
    keys = dict(MODEL__MASK_ON=masks, SOLVER__MAX_ITER=70, SOLVER__BASE_LR=0.02, DATASETS__TEST=("tiny_train",))
    args = command("sni", **keys)
    trained = native.run(native.load_config(args), args)["tiny_train"]
    args = command("sni", "--eval-only", MODEL__WEIGHTS=str(tmp_path / "out" / "model_final.pth"), **keys)
    theirs = engine.run(engine.load_config(args), args)
    ours = native.run(native.load_config(args), args)["tiny_train"]
    assert ours["bbox"] == pytest.approx(trained["bbox"], nan_ok=True)
    assert ours["bbox"]["AP50"] > 1
    assert set(theirs) == ({"bbox", "segm"} if masks else {"bbox"})
    for task, numbers in theirs.items():
        assert {k: ours[task][k] for k in numbers} == pytest.approx(numbers, abs=0.1, nan_ok=True), task
    found = tmp_path / "out" / "inference" / "tiny_train" / "coco_instances_results.json"
    assert json.loads(found.read_text())
    args.opts += ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (80, 96)]
    with_tta = engine.run(engine.load_config(args), args)
    assert set(with_tta) == {*theirs, *(f"{task}_TTA" for task in theirs)}
    assert with_tta["bbox_TTA"]["AP50"] > 1
    ours = native.run(native.load_config(args), args)["tiny_train"]
    for task, numbers in with_tta.items():
        assert {k: ours[task][k] for k in numbers} == pytest.approx(numbers, abs=0.1, nan_ok=True), task
