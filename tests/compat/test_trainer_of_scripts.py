"""Tests of the trainer, hooks, metrics, checkpointer, predictor and log of scripts."""

from __future__ import annotations

import argparse
import json
import logging
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sn2fpn.compat.checkpoint import DetectionCheckpointer
from sn2fpn.compat.config import get_cfg
from sn2fpn.compat.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from sn2fpn.compat.data import transforms as T
from sn2fpn.compat.engine import (
    DefaultPredictor,
    DefaultTrainer,
    HookBase,
    default_argument_parser,
    default_setup,
    hooks,
)
from sn2fpn.compat.evaluation import COCOEvaluator, inference_on_dataset, print_csv_format, verify_results
from sn2fpn.compat.modeling import build_model
from sn2fpn.compat.utils.events import EventStorage, get_event_storage, has_event_storage
from sn2fpn.compat.utils.logger import setup_logger
from sn2fpn.engine import Trainer
from sn2fpn.errors import ArgumentError, UserError


def _rows(cfg: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]


def test_it_trains_as_the_trainer_of_this_package(small_cfg: Any, tmp_path: Path) -> None:
    weights = []
    for cls, folder in ((Trainer, "own"), (DefaultTrainer, "script")):
        cfg = small_cfg(SEED=3, OUTPUT_DIR=str(tmp_path / folder))
        (tmp_path / "own").mkdir(exist_ok=True)
        trainer = cls(cfg)
        trainer.resume_or_load(resume=False)
        results = trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    assert results.keys() == {"bbox", "segm"}  # those of the only data set
    assert DefaultTrainer.test(cfg, trainer.model)["bbox"]["AP"] == results["bbox"]["AP"] or np.isnan(
        results["bbox"]["AP"]
    )


def test_mixed_precision_is_that_of_the_training_alone(small_cfg: Any) -> None:
    dtypes: set[tuple[bool, torch.dtype]] = set()

    def record(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        dtypes.add((module.training, output.dtype))

    trainer = DefaultTrainer(small_cfg(SOLVER__MAX_ITER=1, SOLVER__AMP__ENABLED=True))
    trainer.resume_or_load(resume=False)
    trainer.model.roi_heads.box_head.register_forward_hook(record)
    trainer.train()
    assert dtypes == {(True, torch.bfloat16), (False, torch.float32)}


class _Hook(HookBase):
    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def before_train(self) -> None:
        self.calls.append(f"before_train {has_event_storage()}")

    def before_step(self) -> None:
        self.calls.append(f"before_step {self.trainer.iter}")

    def after_backward(self) -> None:
        p = next(p for p in self.trainer.model.parameters() if p.grad is not None)
        self.calls.append(f"after_backward {bool(p.grad.isfinite().all())}")

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("mine", self.trainer.iter * 10)
        with get_event_storage().name_scope("scope"):
            get_event_storage().put_scalars(a=1.5, b=torch.tensor(2.5))
        self.calls.append(f"after_step {self.trainer.storage.latest()['total_loss'][1]}")

    def after_train(self) -> None:
        self.calls.append("after_train")


def test_hooks_are_called_and_their_metrics_are_written(small_cfg: Any) -> None:
    calls: list[str] = []
    tested: list[int] = []

    class WithHooks(DefaultTrainer):
        def build_hooks(self) -> list[Any]:
            found = super().build_hooks()
            found.insert(-1, hooks.CallbackHook(after_step=lambda trainer: tested.append(trainer.iter)))
            return found

    cfg = small_cfg(SOLVER__MAX_ITER=2, DATASETS__TEST=())
    trainer = WithHooks(cfg)
    trainer.register_hooks([_Hook(calls), None, hooks.EvalHook(1, lambda: {"bbox": {"AP": 12.5}, "n": 3})])
    trainer.resume_or_load()
    trainer.train()
    steps = [f"{name}" for i in (0, 1) for name in (f"before_step {i}", "after_backward True", f"after_step {i}")]
    assert calls == ["before_train True", *steps, "after_train"] and tested == [0, 1]
    assert not has_event_storage()
    assert trainer.storage.history("total_loss").global_avg() > 0
    row = _rows(cfg)[-1]
    assert (row["mine"], row["scope/a"], row["scope/b"], row["bbox/AP"], row["n"]) == (5, 1.5, 2.5, 12.5, 3)
    with pytest.raises(ArgumentError, match="hooks: expected instances of HookBase, found function"):
        trainer.register_hooks([lambda: None])


def test_what_a_subclass_overrides_is_used(small_cfg: Any) -> None:
    made: list[str] = []

    class Mine(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg: Any) -> Any:
            made.append("model")
            return super().build_model(cfg)

        @classmethod
        def build_optimizer(cls, cfg: Any, model: Any) -> Any:
            made.append("optimizer")
            return torch.optim.AdamW(model.parameters(), lr=cfg.SOLVER.BASE_LR)

        @classmethod
        def build_lr_scheduler(cls, cfg: Any, optimizer: Any) -> Any:
            made.append("schedule")
            return super().build_lr_scheduler(cfg, optimizer)

        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            made.append("train loader")
            return build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))

        @classmethod
        def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
            made.append(f"test loader {dataset_name}")
            return super().build_test_loader(cfg, dataset_name)

        @classmethod
        def build_evaluator(cls, cfg: Any, dataset_name: str) -> Any:
            made.append(f"evaluator {dataset_name}")
            return COCOEvaluator(dataset_name, cfg, False, output_dir=cfg.OUTPUT_DIR)

    trainer = Mine(small_cfg(TEST__BEST_METRIC="bbox/AP-even"))  # a metric that only an evaluator of one's own gives
    assert trainer.recipe.metrics() is None
    made.clear()
    trainer = Mine(small_cfg())
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    trainer.resume_or_load(resume=False)
    assert trainer.train().keys() == {"bbox", "segm"}
    assert made == ["model", "optimizer", "schedule", "train loader", "test loader rectangles", "evaluator rectangles"]
    assert Mine.test(trainer.cfg, trainer.model).keys() == {"bbox", "segm"}
    with pytest.raises(ArgumentError, match="evaluators: expected one for each of the 1 data sets"):
        Mine.test(trainer.cfg, trainer.model, [])


def test_an_override_of_test_takes_the_place_of_the_evaluation(small_cfg: Any) -> None:
    class Mine(DefaultTrainer):
        @classmethod
        def test(cls, cfg: Any, model: Any, evaluators: Any = None) -> dict[str, Any]:
            return {"mine": {"score": 7.0}}

    cfg = small_cfg(TEST__EVAL_PERIOD=2)
    trainer = Mine(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.train() == {"mine": {"score": 7.0}}
    assert [row["mine/score"] for row in _rows(cfg) if "mine/score" in row] == [7.0, 7.0]


def test_a_run_is_resumed_by_default(small_cfg: Any) -> None:
    first = DefaultTrainer(small_cfg(SOLVER__MAX_ITER=2, DATASETS__TEST=()))
    first.resume_or_load(resume=False)
    first.train()
    second = DefaultTrainer(small_cfg(SOLVER__MAX_ITER=3, DATASETS__TEST=()))
    second.resume_or_load()
    assert second.start_iter == 2


def test_keys_of_ones_own_survive_a_run(small_cfg: Any) -> None:
    cfg = small_cfg(SOLVER__MAX_ITER=1, DATASETS__TEST=())
    cfg.MODEL.MY_NOTE = "blue"
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.cfg.MODEL.MY_NOTE == "blue"
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    assert DefaultPredictor(cfg).class_names == ["even", "odd"]


def test_a_mistake_is_found_before_anything_is_made(small_cfg: Any) -> None:
    cfg = small_cfg(SOLVER__IMS_PER_BATCH=0)
    with pytest.raises(UserError, match=r"SOLVER\.IMS_PER_BATCH"):
        DefaultTrainer(cfg)
    assert not Path(cfg.OUTPUT_DIR).exists()


def test_the_predictor_gives_what_the_model_gives(small_cfg: Any, records: Any, rectangles: str) -> None:
    cfg = small_cfg(MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0, SOLVER__AMP__ENABLED=True, TEST__AUG__ENABLED=True)
    torch.manual_seed(0)
    DetectionCheckpointer(build_model(cfg), cfg.OUTPUT_DIR).save("random")
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "random.pth")
    predictor = DefaultPredictor(cfg)
    assert predictor.metadata.name == rectangles and not predictor.model.training
    found = predictor(cv2.imread(records[0]["file_name"]))["instances"]
    (batch,) = [b for b in build_detection_test_loader(cfg, rectangles) if b[0]["image_id"] == 0]
    with torch.no_grad():
        (expected,) = predictor.model(batch)  # in single precision and without augmentation
    assert len(found) and torch.equal(found.scores, expected["instances"].scores)
    assert torch.equal(found.pred_boxes.tensor, expected["instances"].pred_boxes.tensor)
    picture = cv2.imread(records[0]["file_name"])
    assert predictor.aug.get_transform(picture).apply_image(picture).shape == (64, 85, 3)
    shapes = []
    predictor.aug = T.Resize((32, 40))
    predictor.model.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[-2:]))
    assert predictor(picture)["instances"].image_size == (48, 64)
    assert shapes == [(32, 64)]  # padded to the stride
    results = inference_on_dataset(
        predictor.model, build_detection_test_loader(cfg, rectangles), COCOEvaluator(rectangles, use_fast_impl=False)
    )
    assert results.keys() == {"bbox", "segm"}


def test_a_checkpointer_has_detectron2s_arguments(tmp_path: Path) -> None:
    model, counter = torch.nn.Linear(2, 3), torch.nn.Linear(1, 1)
    checkpointer = DetectionCheckpointer(model, str(tmp_path), counter=counter)
    assert checkpointer.resume_or_load("", resume=True) == {} and not checkpointer.has_checkpoint()
    checkpointer.save("model_0000004", iteration=4)
    DetectionCheckpointer(model, tmp_path, save_to_disk=False).save("never")
    assert checkpointer.get_all_checkpoint_files() == [str(tmp_path / "model_0000004.pth")]
    other = torch.nn.Linear(2, 3)
    again = DetectionCheckpointer(other, tmp_path)
    again.add_checkpointable("counter", torch.nn.Linear(1, 1))
    assert again.resume_or_load("", resume=True)["iteration"] == 4 and torch.equal(other.weight, model.weight)
    assert torch.equal(again.checkpointables["counter"].weight, counter.weight)
    third = torch.nn.Linear(2, 3)
    DetectionCheckpointer(third).load(f"{tmp_path}/model_0000004.pth?matching_heuristics=True")
    assert torch.equal(third.weight, model.weight)
    checkpointer.save("model_final")  # without an iteration, as a script may
    last = DetectionCheckpointer(torch.nn.Linear(2, 3), tmp_path)
    assert "iteration" not in last.resume_or_load("", resume=True)
    assert last.get_checkpoint_file() == str(tmp_path / "model_final.pth")


def test_a_storage_keeps_all_values() -> None:
    assert not has_event_storage()
    with pytest.raises(RuntimeError, match="expected a training that runs"):
        get_event_storage()
    with EventStorage(5) as outer, EventStorage() as inner:
        assert get_event_storage() is inner
        for value in (4.0, 1.0, 3.0):
            outer.put_scalar("x", value)
            outer.step()
        outer.put_scalar("y", 1, cur_iter=2)
    history = outer.history("x")
    assert history.values() == [(4.0, 5), (1.0, 6), (3.0, 7)]
    assert (history.latest(), history.median(2), history.avg(2), outer.iteration) == (3.0, 2.0, 2.0, 8)
    assert outer.latest() == {"x": (3.0, 7), "y": (1.0, 2)} and outer.histories().keys() == {"x", "y"}


def test_the_log_is_set_up_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        log = setup_logger(str(tmp_path / "run"))
    assert setup_logger(name="fvcore") is log is logging.getLogger("sn2fpn") and len(log.handlers) == 2
    log.info("a line")
    assert capsys.readouterr().out.count("a line") == 1
    assert (tmp_path / "run" / "log.txt").read_text().count("a line") == 1
    setup_logger(str(tmp_path / "other.log"), distributed_rank=1, name="another")
    assert (tmp_path / "other.log.rank1").exists()
    for handler in logging.getLogger("another").handlers:
        handler.close()


@pytest.mark.parametrize("args", [None, {}, argparse.Namespace()])
def test_the_setup_seeds_all_generators(tmp_path: Path, args: Any) -> None:
    def draw(seed: int) -> tuple[float, ...]:
        cfg = get_cfg()
        cfg.SEED, cfg.OUTPUT_DIR = seed, str(tmp_path)
        default_setup(cfg, args)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(7) == draw(7) != draw(8)
    assert not set(draw(-1)) & set(draw(-1))


def test_a_training_program_of_detectron2s_form_runs(
    small_cfg: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = small_cfg(SOLVER__MAX_ITER=1)
    args = default_argument_parser().parse_args(["--config-file", "x.yaml", "SOLVER.BASE_LR", "0.001"])
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    assert "BASE_LR: 0.001" in (Path(cfg.OUTPUT_DIR) / "config.yaml").read_text()
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    results = trainer.train()
    capsys.readouterr()
    print_csv_format(results)
    assert "AP,AP50,AP75" in capsys.readouterr().out


def test_results_are_compared_with_those_that_are_expected(caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    assert verify_results(cfg, {})
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 38.5, 0.2], ["bbox", "AP50", 60.0, 0.5]]
    assert verify_results(cfg, {"bbox": {"AP": 38.6, "AP50": 59.6}})
    with pytest.raises(SystemExit):
        verify_results(cfg, {"bbox": {"AP": 38.8, "AP50": float("nan")}})
    words = "bbox/AP: expected 38.5 within 0.2, found 38.8; bbox/AP50: expected 60.0 within 0.5, found nan"
    assert words in caplog.text
    with pytest.raises(SystemExit):
        verify_results(cfg, {"segm": {}})
