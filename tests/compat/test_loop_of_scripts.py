"""Tests of the training loop of scripts with a model of one number: its metrics, hooks and evaluations."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.compat.engine import DefaultTrainer, HookBase, hooks
from sn2fpn.compat.solver import LRMultiplier
from sn2fpn.compat.utils.events import EventStorage, get_event_storage
from sn2fpn.engine import Hook
from sn2fpn.engine.solver import ConstantParamScheduler
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


class _Counter(HookBase):
    def __init__(self) -> None:
        self.steps = 0

    def after_step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps} if self.steps else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


class _NamedCounter(Hook):
    checkpoint_key = "counter"
    __init__, after_step, state_dict = _Counter.__init__, _Counter.after_step, _Counter.state_dict
    load_state_dict = _Counter.load_state_dict


@pytest.mark.parametrize("kind", [_Counter, _NamedCounter])
@pytest.mark.parametrize("late", [False, True], ids=["before resuming", "after resuming"])
def test_states_of_hooks_are_resumed(small_cfg: Any, tiny_trainer: Any, kind: Any, late: bool) -> None:
    for end in (2, 5):
        trainer, hook = tiny_trainer(small_cfg(SOLVER__MAX_ITER=end, DATASETS__TEST=())), kind()
        for step in (trainer.resume_or_load, lambda: trainer.register_hooks([hook]))[:: 1 if late else -1]:  # noqa: B023
            step()
        trainer.train()
    assert trainer.start_iter == 2 and hook.steps == 5


class _Iterations(HookBase):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def before_train(self) -> None:
        self.seen.append((self.trainer.iter, self.trainer.storage.iter))

    def after_train(self) -> None:
        self.seen.append((self.trainer.iter, self.trainer.max_iter))


def test_hooks_see_detectron2s_iterations_around_the_steps(small_cfg: Any, tiny_trainer: Any) -> None:
    for first, end in ((0, 2), (2, 5)):
        trainer, hook = tiny_trainer(small_cfg(SOLVER__MAX_ITER=end, DATASETS__TEST=())), _Iterations()
        trainer.register_hooks([hook])
        trainer.resume_or_load()
        trainer.train()
        assert hook.seen == [(first, first), (end, end)]
        assert trainer.iter == end - 1


def test_the_check_before_a_run_leaves_out_what_a_subclass_makes(small_cfg: Any) -> None:
    made: list[str] = []

    class Mine(DefaultTrainer):
        @classmethod
        def build_optimizer(cls, cfg: Any, model: Any) -> Any:
            made.append("optimizer")
            return super().build_optimizer(cfg, model)

        @classmethod
        def build_lr_scheduler(cls, cfg: Any, optimizer: Any) -> Any:
            made.append(cfg.SOLVER.LR_SCHEDULER_NAME)
            return LRMultiplier(optimizer, ConstantParamScheduler(1.0), cfg.SOLVER.MAX_ITER)

    Mine(small_cfg(SOLVER__LR_SCHEDULER_NAME="MyLR"))
    assert made == ["optimizer", "MyLR"]


def test_an_own_test_evaluates_the_average_and_chooses_the_best_model(small_cfg: Any, tiny_trainer: Any) -> None:
    scores, weights = [3.0, 2.0, 1.0], []

    class Mine(tiny_trainer):
        @classmethod
        def test(cls, cfg: Any, model: Any, evaluators: Any = None) -> dict[str, Any]:
            weights.append(model.weight.item())
            return {"mine": {"score": scores[len(weights) - 1]}}

    cfg = small_cfg(SOLVER__MAX_ITER=9, SOLVER__EMA__ENABLED=True, SOLVER__EMA__DECAY=0.9999, TEST__VAL_LOSS=True)
    cfg.merge_from_list(["TEST.EVAL_PERIOD", 1, "TEST.PATIENCE", 1, "TEST.BEST_METRIC", "mine/score"])
    trainer = Mine(cfg)
    assert _train(trainer) == {"mine": {"score": 2.0}}
    assert trainer.iter == 1  # stopped by the patience
    assert weights == pytest.approx([1, 1], abs=1e-3) and trainer.model.weight < 0.99  # those of a slow average
    assert [row["mine/score"] for row in _rows(cfg)] == [3.0, 2.0]
    assert [row["val/loss"] for row in _rows(cfg)] == pytest.approx([1, 1], abs=1e-3)
    assert torch.load(Path(cfg.OUTPUT_DIR) / "model_best.pth", weights_only=True)["iteration"] == 0


def test_a_checkpoint_of_a_hook_outside_of_steps_loses_no_step(small_cfg: Any, tiny_trainer: Any) -> None:
    class Saves(HookBase):
        def before_train(self) -> None:
            self.trainer.save("before")

        def after_train(self) -> None:
            self.trainer.save("after")

    trainer = tiny_trainer(small_cfg(SOLVER__MAX_ITER=2, DATASETS__TEST=()))
    trainer.register_hooks([Saves()])
    _train(trainer)
    files = [Path(trainer.cfg.OUTPUT_DIR) / f"{name}.pth" for name in ("before", "after")]
    assert [torch.load(file, weights_only=True)["iteration"] for file in files] == [-1, 1]


def test_a_model_may_return_its_loss_alone(small_cfg: Any, tiny_trainer: Any) -> None:
    class Mine(tiny_trainer):
        @classmethod
        def build_model(cls, cfg: Any) -> Any:
            model = super().build_model(cfg)
            model.forward = lambda batch: model.weight.square().sum()
            return model

    cfg = small_cfg(SOLVER__MAX_ITER=1, DATASETS__TEST=())
    _train(Mine(cfg))
    assert _rows(cfg)[0]["total_loss"] == 1


def test_a_static_method_overrides_too_and_what_has_no_effect_is_named(
    small_cfg: Any, tiny_trainer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(tiny_trainer):
        @staticmethod
        def build_evaluator(cfg: Any, dataset_name: str) -> Any:
            raise NotImplementedError

        def build_writers(self) -> list[Any]:
            raise NotImplementedError

    monkeypatch.setattr(logging.getLogger("sn2fpn"), "propagate", True)
    logging.getLogger("sn2fpn").setLevel(logging.INFO)
    assert Mine(small_cfg()).recipe.metrics() is None  # those of an evaluator of one's own are not known
    assert "Mine.build_writers is not called: DefaultTrainer writes metrics.json" in caplog.text
    Mine.test = classmethod(lambda *_: {})
    Mine(small_cfg(TEST__AUG__ENABLED=True))
    assert "TEST.AUG has no effect, because Mine has a method test of its own" in caplog.text
