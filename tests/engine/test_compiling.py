"""Tests of MODEL.COMPILE: the same losses and names, and messages where it cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer
from sn2fpn.engine.compiling import compile_backbone
from sn2fpn.engine.options import RunOptions
from sn2fpn.errors import UserError

MakeCfg = Callable[..., CfgNode]


@pytest.mark.slow
def test_compiled_layers_give_the_same_losses(tiny_cfg: MakeCfg, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"SEED": 1, "SOLVER.MAX_ITER": 2, "DATASETS.TEST": [], "MODEL.WEIGHTS": ""}
    keys |= {"INPUT.MAX_SIZE_TRAIN": 96, "DATALOADER.ASPECT_RATIO_GROUPING": False}  # of one shape
    keys |= {"MODEL.BACKBONE.FREEZE_AT": 4}  # only res5 and the pyramid are compiled backward, which takes less time
    losses, names = [], []
    for compiled in (False, True):
        out = tmp_path / f"compiled_{compiled}"
        cfg = tiny_cfg(keys | {"MODEL.COMPILE": compiled, "OUTPUT_DIR": str(out)})
        register_custom(cfg.DATASETS.CUSTOM)
        out.mkdir()
        trainer = Trainer(cfg)
        trainer.resume_or_load(False)
        trainer.train()
        losses.append([x for k, v in trainer.storage.state_dict().items() if "loss" in k for x in v])
        names.append(list(torch.load(out / "model_final.pth", weights_only=True)["model"]))
        assert (trainer.model.backbone._compiled_call_impl is not None) == compiled
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1] or torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    assert names[0] == names[1]
    resumed = Trainer(tiny_cfg(keys | {"SOLVER.MAX_ITER": 2, "OUTPUT_DIR": str(out)}))
    resumed.resume_or_load(True)  # a model is the same one with and without it
    assert resumed.start_iter == 2


def test_messages_where_nothing_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(device="cpu", compile=True)
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    compile_backbone(model, RunOptions(device="cpu"))
    assert model.backbone._compiled_call_impl is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = r"^MODEL.COMPILE: torch.compile needs a compiler of C\+\+, but 'no-such-compiler' .*; set it to False"
    with pytest.raises(UserError, match=words):
        compile_backbone(model, options)
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    with pytest.raises(UserError, match=r"header files of Python, and /nowhere/Python\.h does not exist"):
        compile_backbone(model, options)
    with pytest.raises(UserError, match="expected a model with a `backbone`, found Linear"):
        compile_backbone(nn.Linear(1, 1), options)
