"""Tests of the training loop of scripts with a model of one number: its metrics, hooks and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.compat.engine import HookBase, hooks
from sn2fpn.compat.utils.events import EventStorage, get_event_storage
from sn2fpn.engine.step_log import StepLog


def _train(trainer: Any) -> Any:
    trainer.resume_or_load(resume=False)
    return trainer.train()


def _rows(cfg: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]


class _PutInEachStep(HookBase):
    def after_step(self) -> None:
        storage = get_event_storage()
        storage.put_scalar("smooth", self.trainer.iter)
        storage.put_scalar("last", self.trainer.iter, smoothing_hint=False)
        if self.trainer.iter == 21:
            storage.put_scalar("once", 5.0)

    def after_train(self) -> None:
        self.trainer.storage.put_scalar("at the end", 6.0)


def test_metrics_of_each_step_are_written_with_those_of_the_training(small_cfg: Any, tiny_trainer: Any) -> None:
    cfg = small_cfg(SOLVER__MAX_ITER=45, DATASETS__TEST=())
    trainer = tiny_trainer(cfg)
    trainer.register_hooks([_PutInEachStep(), hooks.EvalHook(0, lambda: {"score": 7.0})])
    _train(trainer)
    rows = {row["iteration"]: row for row in _rows(cfg)}
    assert list(rows) == [0, 19, 39, 44]
    assert [rows[i]["smooth"] for i in rows] == [0, 9.5, 29.5, 34.5]  # medians over 20 iterations
    assert [rows[i]["last"] for i in rows] == [0, 19, 39, 44]
    assert [i for i in rows if "once" in rows[i]] == [39] and rows[44]["at the end"] == 6
    table = (Path(cfg.OUTPUT_DIR) / "results.csv").read_text().splitlines()
    assert table[0] == "iteration,epoch,seconds,score" and len(table) == 2  # evaluations alone


def test_values_that_are_read_together_keep_their_iterations() -> None:
    storage = EventStorage()
    log = StepLog(storage)
    for i in range(3):
        storage.iter = i
        log.add(i, ["image"], {"loss": torch.tensor(float(i))}, {}, 0.0)
    log.read()  # on a GPU, once for many steps
    assert storage.history("loss").values() == [(0.0, 0), (1.0, 1), (2.0, 2)]


def test_gradients_are_clipped_once(small_cfg: Any, tiny_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clipped: list[int] = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_value_", lambda params, value: clipped.append(len(params)))
    cfg = small_cfg(SOLVER__MAX_ITER=2, DATASETS__TEST=())
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = True, "value"
    _train(tiny_trainer(cfg))
    assert clipped == [1, 1]
