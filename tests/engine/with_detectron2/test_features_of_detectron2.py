"""Tests of what Detectron2's engine has beside the native one's: schedules, clipping, RetinaNet and services."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.pyramids import PYRAMIDS

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

from detectron2 import model_zoo  # noqa: E402
from detectron2.solver import build_lr_scheduler  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from their_trainer import Command  # noqa: E402

from sn2fpn.engine import detectron2 as engine  # noqa: E402


@pytest.mark.parametrize("pyramid", PYRAMIDS)
def test_retinanet_of_the_model_zoo_trains(pyramid: str, command: Command, tmp_path: Path) -> None:
    """Detectron2's YAML file trains with the name of our backbone, in a small run."""
    zoo = model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    small = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "MODEL.RETINANET.NUM_CLASSES": 6,
        "SOLVER.MAX_ITER": 2,
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.BACKBONE.FREEZE_AT": 0,
    }
    args = command("", config=zoo, **{"MODEL.BACKBONE.NAME": f"build_sn2_{pyramid}_retinanet_backbone"}, **small)
    engine.run(engine.load_config(args), args)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    assert {"loss_cls", "loss_box_reg"} <= set(lines[-1] | lines[0])
    names = set(torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)["model"])
    if pyramid == "fpn":
        assert {"backbone.top_block.p6.weight", "backbone.top_block.p7.bias", "backbone.fpn_lateral3.weight"} <= names


def test_clipping_by_the_full_norm(command: Command) -> None:
    args = command("sni", SOLVER__CLIP_GRADIENTS__CLIP_VALUE=0.5, DATASETS__TEST=())
    cfg: CfgNode = engine.load_config(args)
    model = torch.nn.Linear(3, 3)
    optimizer = engine.Trainer.build_optimizer(cfg, model)
    for p in model.parameters():
        p.grad = torch.full_like(p, 10.0)
    optimizer.step()
    assert torch.cat([p.grad.flatten() for p in model.parameters()]).norm() == pytest.approx(0.5, rel=1e-4)


def test_gradients_of_zero_are_clipped_by_their_norm(command: Command) -> None:
    keys = dict(SOLVER__CLIP_GRADIENTS__ENABLED=True, SOLVER__CLIP_GRADIENTS__CLIP_TYPE="full_norm")
    model = torch.nn.Linear(1, 1)
    optimizer = engine.Trainer.build_optimizer(engine.load_config(command("sni", **keys)), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def _rates(cfg: Any, build: Callable[..., Any]) -> list[float]:
    """Return the learning rates at all iterations and after the last one, or up to where the schedule fails."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    rates = []
    with contextlib.suppress(IndexError, RuntimeError, ValueError, ZeroDivisionError):  # Detectron2's schedules
        scheduler = build(cfg, optimizer)
        for _ in range(cfg.SOLVER.MAX_ITER):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"])
@pytest.mark.parametrize("method", ["linear", "constant"])
def test_the_schedules_are_detectron2s_and_never_fail(name: str, method: str) -> None:
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.WARMUP_METHOD = name, method
    complete = 0
    for end, warmup, rescale, steps in product((7, 10, 31), (0, 1, 3, 10, 40), (False, True), ((), (3, 5), (3, 7))):
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.RESCALE_INTERVAL = end, warmup, rescale
        cfg.SOLVER.STEPS = steps
        ours, theirs = _rates(cfg, engine.Trainer.build_lr_scheduler), _rates(cfg, build_lr_scheduler)
        assert len(ours) == end + 1
        assert ours[: len(theirs)] == theirs
        complete += len(theirs) == end + 1
    assert complete == {"WarmupMultiStepLR": 67, "WarmupCosineLR": 75, "WarmupStepWithFixedGammaLR": 0}[name]  # of 90


def test_a_schedule_that_detectron2_cannot_end(command: Command, tmp_path: Path) -> None:
    keys = dict(SOLVER__LR_SCHEDULER_NAME="WarmupStepWithFixedGammaLR", SOLVER__WARMUP_ITERS=1, DATASETS__TEST=())
    args = command("sni", SOLVER__MAX_ITER=2, **keys)
    engine.run(engine.load_config(args), args)
    assert torch.load(tmp_path / "out/model_final.pth", weights_only=True)["iteration"] == 1


def test_the_visualisation_period(command: Command, tmp_path: Path) -> None:
    args = command("sni", VIS_PERIOD=1, SOLVER__MAX_ITER=2, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    assert comm.get_world_size() == 1
    assert list((tmp_path / "out").glob("events.out.tfevents.*"))


def test_detectron2_sends_its_metrics_to_a_service(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Service:
        def __init__(self, name: str, folder: Path, resumed: bool) -> None:
            self.about, self.rows, self.complete = (name, folder, resumed), {}, None
            made.append(self)

        def write(self, iteration: int, scalars: dict[str, float]) -> None:
            self.rows.setdefault(iteration, {}).update(scalars)

        def close(self, complete: bool) -> None:
            self.complete = complete

    monkeypatch.setattr("sn2fpn.engine.detectron2.reporting.Remote", Service)
    monkeypatch.setattr("sn2fpn.engine.options.check_installed", lambda _: None)
    for flags, iterations in (((), 2), (("--resume",), 3)):
        args = command("fpn", *flags, LOGGING__WANDB=True, SOLVER__MAX_ITER=iterations)
        engine.run(engine.load_config(args), args)
    out = tmp_path / "out"
    assert [service.about for service in made] == [("wandb", out, False), ("wandb", out, True)]
    assert all(service.complete for service in made)
    rows = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    for row in rows:
        sent = [service.rows[row["iteration"]] for service in made if row["iteration"] in service.rows][-1]
        assert {k: sent[k] for k in row if k != "iteration"} == {k: v for k, v in row.items() if k != "iteration"}
