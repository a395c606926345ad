"""Tests of both engines on one run: equal losses and scores, exchanged checkpoints, and features of Detectron2."""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import logging
import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data import build_train_loader, register_custom
from sn2fpn.engine import default_argument_parser, native
from sn2fpn.engine.trainer import Trainer as NativeTrainer
from sn2fpn.errors import UserError
from sn2fpn.program import STOP_SIGNALS, Interrupted
from sn2fpn.pyramids import PYRAMIDS

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

from detectron2 import model_zoo  # noqa: E402
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.engine import AMPTrainer  # noqa: E402
from detectron2.solver import build_lr_scheduler  # noqa: E402
from detectron2.utils import comm  # noqa: E402

from engine_comparison import compute_exactly, to_detectron2  # noqa: E402
from sn2fpn.engine import detectron2 as engine  # noqa: E402
from sn2fpn.engine.detectron2.checkpoints import choose_last  # noqa: E402

QUICK = Path(__file__).parents[2] / "configs" / "quick"
Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()  # Detectron2's trainers leave files open until they are collected
    for name in ("tiny_train", "tiny_val"):
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog:
                catalog.remove(name)
    for name in ("sn2fpn", "detectron2", "fvcore"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True


@pytest.fixture
def command(tiny_keys: dict[str, Any], tmp_path: Path) -> Command:
    """`command("sni", "--resume", SOLVER__MAX_ITER=4)` returns the parsed arguments of the small run."""

    def make(name: str, *flags: str, config: Path | str | None = None, **keys: Any) -> Any:
        keys = tiny_keys | {"OUTPUT_DIR": str(tmp_path / "out")} | {k.replace("__", "."): v for k, v in keys.items()}
        config = config or QUICK / f"faster_rcnn_R18_{name}_shapes.yaml"
        args = default_argument_parser().parse_args(["--config-file", str(config), *flags])
        args.opts = [x for pair in keys.items() for x in pair]
        return args

    return make


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
    theirs = _their_trainer(args)
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
    trainer = _their_trainer(args)
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
    for trainer in (NativeTrainer(native.load_config(args)), _their_trainer(args)):
        names = {p: n for n, p in trainer.model.named_parameters()}
        optimizer = getattr(trainer, "optimizer", None) or trainer._trainer.optimizer
        orders.append([[names[p] for p in group["params"]] for group in optimizer.param_groups])
    assert orders[0] == orders[1]


def _their_trainer(args: Any) -> Any:
    cfg = engine.load_config(args)
    engine._register_datasets(cfg)
    return engine.Trainer(cfg)


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


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"SOLVER.ACCUMULATE_STEPS": 2}, "SOLVER.ACCUMULATE_STEPS: Detectron2 serves 1, found 2; add --engine native"),
        ({"SOLVER.EMA.ENABLED": True}, "SOLVER.EMA.ENABLED.*--engine native"),
        ({"SOLVER.OPTIMIZER": "AdamW"}, "SOLVER.OPTIMIZER.*--engine native"),
        ({"MODEL.ROI_HEADS.SOFT_NMS.METHOD": "linear"}, "SOFT_NMS.METHOD: Detectron2 serves ''.*--engine native"),
        ({"MODEL.ROI_HEADS.CANONICAL_BOX_SIZE": 112}, "CANONICAL_BOX_SIZE: Detectron2 serves 224, found 112"),
        ({"INPUT.MOSAIC.PROB": 0.5}, "INPUT.MOSAIC.PROB: Detectron2 serves 0.0, found 0.5; add --engine native"),
        ({"INPUT.COPY_PASTE.PROB": 1.0}, "INPUT.COPY_PASTE.PROB.*--engine native"),
        ({"INPUT.PHOTOMETRIC.ENABLED": True}, "INPUT.PHOTOMETRIC.ENABLED.*--engine native"),
        ({"INPUT.SCALE_JITTER.ENABLED": True}, "INPUT.SCALE_JITTER.ENABLED.*--engine native"),
        ({"INPUT.MIN_VISIBLE": 0.2}, "INPUT.MIN_VISIBLE.*--engine native"),
        ({"INPUT.FUNCTION": "mine:augment"}, "INPUT.FUNCTION: Detectron2 serves ''.*--engine native"),
        ({"SOLVER.AMP.ENABLED": True}, "SOLVER.AMP.ENABLED.*GPUs only"),
        ({"TEST.BEST_METRIC": "bbox/AR"}, "TEST.BEST_METRIC: Detectron2 gives no recall.*'bbox/AP'"),
        ({"SOLVER.STEPS": (5, 3)}, r"SOLVER.STEPS: expected rising iterations of at least 1, found \[5, 3\]"),
        ({"SOLVER.BASE_LRR": 1}, "did you mean 'SOLVER.BASE_LR'"),
        ({"MODEL.RETINANET.NUM_CLASES": 1}, "did you mean 'MODEL.RETINANET.NUM_CLASSES'"),
        (
            {"DATASETS.TRAIN": ("shapes_trian",)},
            "DATASETS.TRAIN: unknown data set 'shapes_trian'; did you mean 'shapes_tr",
        ),
        (
            {"MODEL.ROI_HEADS.NUM_CLASSES": 7},
            "MODEL.ROI_HEADS.NUM_CLASSES: expected 6, the number of classes of data set 'tiny_train'",
        ),
        ({"MODEL.WEIGHTS": "nowhere.pth"}, "MODEL.WEIGHTS: there is no file nowhere.pth"),
        ({"MODEL.FPN.NORM": "BM"}, "MODEL.FPN.NORM: unknown value 'BM'"),
        (
            {"MODEL.ROI_HEADS.NAME": "StandardROIHead"},
            "MODEL.ROI_HEADS.NAME: unknown value .* did you mean 'StandardROIHeads'",
        ),
        ({"MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p9"]}, "MODEL.ROI_HEADS.IN_FEATURES: .* no output 'p9'"),
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.ESD.ENABLED": True},
            "ESD.ENABLED: Detectron2's build_resnet_fpn_backbone does not .* found True; use .* build_sn2_fpn_backbone",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone", "MODEL.FPN.UPSAMPLE": "carafe"},
            "MODEL.FPN.UPSAMPLE: .* use MODEL.BACKBONE.NAME build_sn2_fpn_retinanet_backbone, or leave it at 'nearest'",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.BACKBONE.TRUNK": "timm/resnet10t"},
            "MODEL.BACKBONE.TRUNK: Detectron2's build_resnet_fpn_backbone does not read this key",
        ),
        (
            {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, True]},
            "DEFORM_ON_PER_STAGE: this project's trunk has no .* set MODEL.BACKBONE.NAME to build_resnet_fpn_backbone",
        ),
        ({"INPUT.MASK_FORMAT": "polygn"}, "INPUT.MASK_FORMAT: unknown value 'polygn'; did you mean 'polygon'"),
        ({"MODEL.DEVICE": "cdua"}, "MODEL.DEVICE: there is no device 'cdua'"),
        ({"MODEL.BACKBONE.NAME": "build_sn2_snii_backbone"}, "MODEL.BACKBONE.NAME.*'build_sn2_sni_backbone'"),
    ],
)
def test_mistakes_are_one_message(keys: dict[str, Any], words: str, command: Command) -> None:
    args = command("sni", **keys)
    with pytest.raises(UserError, match=words):
        engine.run(engine.load_config(args), args)


def test_a_file_that_asks_for_code_is_refused(command: Command, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "code.pkl").write_bytes(pickle.dumps({"model": {"x": Code()}}))
    args = command("sni", "--eval-only", MODEL__WEIGHTS=str(tmp_path / "code.pkl"))
    with pytest.raises(UserError, match=r"code\.pkl is refused"):
        engine.run(engine.load_config(args), args)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny_boxes", "MODEL.MASK_ON, .*none of the .* objects of data set '?tiny_boxes'? has one"),
        ("tiny_lost", r"image file does not exist \(8 of 8 images"),
    ],
)
def test_data_that_cannot_teach_are_refused(
    name: str, words: str, command: Command, tiny_keys: dict[str, Any], tmp_path: Path
) -> None:
    entry = {**tiny_keys["DATASETS.CUSTOM"][0], "NAME": name}
    if name == "tiny_lost":
        entry["IMAGES"] = str(tmp_path)
    else:
        content = json.loads(Path(entry["JSON"]).read_text())
        content["annotations"] = [{**a, "segmentation": []} for a in content["annotations"]]
        entry["JSON"] = str(tmp_path / "boxes.json")
        Path(entry["JSON"]).write_text(json.dumps(content))
    args = command("sni", MODEL__MASK_ON=True, DATASETS__CUSTOM=[entry], DATASETS__TRAIN=(name,), DATASETS__TEST=())
    with pytest.raises(UserError, match=words):
        engine.run(engine.load_config(args), args)


def test_several_cpu_processes_need_the_native_engine(command: Command) -> None:
    args = command("sni", "--num-gpus", "2")
    with pytest.raises(UserError, match="--num-gpus 2: Detectron2 trains in several processes on GPUs only"):
        engine.load_config(args)


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


def test_a_resumed_run_of_detectron2_doubles_no_row_and_outlives_a_damaged_file(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = dict(DATASETS__TEST=(), SOLVER__CHECKPOINT_PERIOD=20)
    args = command("sni", SOLVER__MAX_ITER=41, **keys)
    engine.run(engine.load_config(args), args)
    out = tmp_path / "out"
    saved = torch.load(out / "model_0000019.pth", weights_only=True)
    assert len(saved["class_names"]) == 6 and "BASE_LR: 0.02" in saved["config"]
    for name in ("model_final.pth", "model_0000039.pth"):
        (out / name).write_bytes((out / name).read_bytes()[:-100])
    args = command("sni", "--resume", SOLVER__MAX_ITER=42, SOLVER__BASE_LR=0.01, **keys)
    engine.run(engine.load_config(args), args)
    log = (out / "log.txt").read_text()
    assert f"continues from {out / 'model_0000019.pth'}" in log and "SOLVER.BASE_LR: 0.02 -> 0.01" in log
    rows = [json.loads(line)["iteration"] for line in (out / "metrics.json").read_text().splitlines()]
    assert rows == [19, 39, 41]
    args = command("sni", SOLVER__MAX_ITER=1, **keys)
    engine.run(engine.load_config(args), args)
    assert (out / "earlier_1" / "model_0000019.pth").is_file() and not (out / "model_0000019.pth").exists()


def test_metrics_of_a_run_without_a_checkpoint_are_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"iteration": 19}\n')
    choose_last(str(tmp_path), train=False)
    assert not (tmp_path / "metrics.json.1").exists()
    choose_last(str(tmp_path), train=True)
    assert (tmp_path / "metrics.json").read_text() == ""
    assert (tmp_path / "metrics.json.1").read_text() == '{"iteration": 19}\n'


def test_mixed_precision_may_begin_at_a_resume() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = object.__new__(engine.Trainer)
    trainer._hooks = []
    trainer._trainer = AMPTrainer(model, [], optimizer, grad_scaler=torch.amp.GradScaler("cpu"))
    trainer.load_state_dict({"iteration": 3, "_trainer": {"iteration": 3, "optimizer": optimizer.state_dict()}})
    assert trainer._trainer.iter == 3


def test_a_checkpoint_that_does_not_fit_is_one_message(command: Command, tmp_path: Path) -> None:
    keys = dict(DATASETS__TEST=(), SOLVER__MAX_ITER=1)
    args = command("sni", **keys)
    engine.run(engine.load_config(args), args)
    args = command("sni", "--resume", SOLVER__BIAS_LR_FACTOR=2.0, **keys)
    with pytest.raises(UserError, match="Detectron2 cannot load this checkpoint into this configuration: ValueError"):
        engine.run(engine.load_config(args), args)
    assert "SOLVER.BIAS_LR_FACTOR: 1.0 -> 2.0" in (tmp_path / "out/log.txt").read_text()


def test_a_resumed_run_of_detectron2_does_not_need_its_first_weights(command: Command, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"DATASETS.TEST": (), "MODEL.WEIGHTS": ""}
    args = command("sni", SOLVER__MAX_ITER=1, **keys)
    engine.run(engine.load_config(args), args)
    first = (tmp_path / "out/model_final.pth").rename(tmp_path / "first.pth")
    (tmp_path / "out/last_checkpoint").unlink()
    keys["MODEL.WEIGHTS"] = str(first)
    args = command("sni", SOLVER__MAX_ITER=1, **keys)
    engine.run(engine.load_config(args), args)
    first.unlink()
    args = command("sni", "--resume", SOLVER__MAX_ITER=2, **keys)
    engine.run(engine.load_config(args), args)
    last = tmp_path / "out/model_final.pth"
    assert torch.load(last, weights_only=True)["iteration"] == 1
    keys["DATASETS.TEST"] = ("tiny_val",)
    args = command("sni", "--eval-only", "--resume", **keys)
    assert "bbox" in engine.run(engine.load_config(args), args)
    saved = torch.load(last, weights_only=True)
    torch.save(saved | {"class_names": saved["class_names"][::-1]}, last)
    with pytest.raises(UserError, match=rf"^{last}: class 0 is .* in data set 'tiny_val'.*--allow-partial"):
        engine.run(engine.load_config(args), args)


def test_gradients_of_zero_are_clipped_by_their_norm(command: Command) -> None:
    keys = dict(SOLVER__CLIP_GRADIENTS__ENABLED=True, SOLVER__CLIP_GRADIENTS__CLIP_TYPE="full_norm")
    model = torch.nn.Linear(1, 1)
    optimizer = engine.Trainer.build_optimizer(engine.load_config(command("sni", **keys)), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def test_detectron2_keeps_the_newest_checkpoints(command: Command, tmp_path: Path) -> None:
    keys = dict(DATASETS__TEST=(), SOLVER__CHECKPOINT_PERIOD=1, SOLVER__CHECKPOINTS_TO_KEEP=2)
    args = command("sni", SOLVER__MAX_ITER=5, **keys)
    engine.run(engine.load_config(args), args)
    names = sorted(p.name for p in (tmp_path / "out").glob("*.pth"))
    assert names == ["model_0000003.pth", "model_0000004.pth", "model_final.pth"]


def test_detectron2_keeps_the_best_checkpoint_also_over_a_resume(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([10.0, 30.0, 20.0, 25.0, 31.0])
    monkeypatch.setattr(engine.Trainer, "test", lambda *_: {"bbox": {"AP": next(scores)}})
    out, found = tmp_path / "out", []
    for flags, iterations in (((), 3), (("--resume",), 4), (("--resume",), 5)):
        keys = {"TEST__BEST_METRIC": "bbox/AP", "TEST__EVAL_PERIOD": 1, "SOLVER__MAX_ITER": iterations}
        args = command("fpn", *flags, **keys)
        engine.run(engine.load_config(args), args)
        found.append(torch.load(out / "model_best.pth", weights_only=True)["iteration"])
        assert (out / "last_checkpoint").read_text().strip() == "model_final.pth"
    assert found == [1, 1, 4]
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["iteration"], row["bbox/AP"]) for row in rows] == [
        *(("0", "10.0"), ("1", "30.0"), ("2", "20.0"), ("3", "25.0"), ("4", "31.0"))
    ]
    assert [row["epoch"] for row in rows] == ["0.25", "0.5", "0.75", "1.0", "1.25"]  # 2 of 8 images in a step
    assert [float(row["seconds"]) for row in rows] == sorted(float(row["seconds"]) for row in rows)


def test_detectron2_names_a_best_metric_that_a_run_does_not_give(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"TEST\.BEST_METRIC: unknown value 'bbox/AP51'; did you mean 'bbox/AP"):
        engine.load_config(command("fpn", TEST__BEST_METRIC="bbox/AP51"))
    monkeypatch.setattr(engine.Trainer, "test", lambda *_: {"tiny_val": {"bbox": {"AP": 1.0, "AP-circle": 2.0}}})
    args = command("fpn", DATASETS__TEST=["tiny_val", "tiny_train"], TEST__EVAL_PERIOD=1, SOLVER__MAX_ITER=2)
    engine.run(engine.load_config(args), args)
    log = (tmp_path / "out/log.txt").read_text()
    assert log.count("TEST.BEST_METRIC bbox/AP: the evaluations of this run do not give it") == 1
    assert not (tmp_path / "out/model_best.pth").exists()
    header = (tmp_path / "out/results.csv").read_text().splitlines()[0]
    assert header == "iteration,epoch,seconds,tiny_val/bbox/AP"


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


def test_detectron2_refuses_to_evaluate_another_models_checkpoint(command: Command, tmp_path: Path) -> None:
    args = command("sni", SOLVER__MAX_ITER=1, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    keys = {"MODEL.WEIGHTS": str(tmp_path / "out/model_final.pth"), "OUTPUT_DIR": str(tmp_path / "evaluated")}
    args = command("pafpn", "--eval-only", config=QUICK / "faster_rcnn_R18_sni_shapes.yaml", **keys)
    args.opts += ["MODEL.BACKBONE.NAME", "build_sn2_pafpn_backbone"]
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS: .*another model.*--allow-partial"):
        engine.run(engine.load_config(args), args)
    args.allow_partial = True
    assert "bbox" in engine.run(engine.load_config(args), args)


def test_detectron2_refuses_to_evaluate_another_pyramid_with_the_same_names(command: Command, tmp_path: Path) -> None:
    args = command("sni", SOLVER__MAX_ITER=1, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    out = tmp_path / "out"
    of_training = (out / "config.yaml").read_text()
    keys = {"MODEL.WEIGHTS": str(out / "model_final.pth")}
    args = command("sni", "--eval-only", **keys)
    args.opts += ["MODEL.BACKBONE.NAME", "build_sn2_fpn_backbone"]
    with pytest.raises(
        UserError, match=r"MODEL.WEIGHTS: .*BACKBONE.NAME was build_sn2_sni_backbone and is build_sn2_f"
    ):
        engine.run(engine.load_config(args), args)
    args = command("sni", "--eval-only", **keys)
    assert "bbox" in engine.run(engine.load_config(args), args)
    assert (out / "config.yaml").read_text() == of_training and (out / "inference/config.yaml").is_file()


def _at(iteration: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something during an iteration of Detectron2's trainer."""
    step = engine.Trainer.run_step

    def run_step(trainer: Any) -> None:
        if trainer.iter == iteration:
            do()
        step(trainer)

    monkeypatch.setattr(engine.Trainer, "run_step", run_step)


@pytest.mark.parametrize("grouped", [True, False])
def test_signals_and_dead_workers_save_and_end(
    grouped: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = dict(DATASETS__TEST=(), DATALOADER__NUM_WORKERS=1, DATALOADER__ASPECT_RATIO_GROUPING=grouped)

    def stop() -> None:
        for number in STOP_SIGNALS:
            os.kill(multiprocessing.active_children()[0].pid, number)
        os.kill(os.getpid(), signal.SIGUSR1)

    _at(3, stop, monkeypatch)
    args = command("sni", **keys)
    with pytest.raises(Interrupted, match=r"^Interrupted after iteration 3 by SIGUSR1; model_0000002.pth was saved"):
        engine.run(engine.load_config(args), args)
    assert torch.load(tmp_path / "out/model_0000002.pth", weights_only=True)["iteration"] == 2

    def kill() -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()

    monkeypatch.undo()
    _at(6, kill, monkeypatch)
    args = command("sni", "--resume", **keys)
    with pytest.raises(UserError, match=r"^worker 1 of 1 .*SIGKILL.*after iteration 6; model_0000005.pth was saved"):
        engine.run(engine.load_config(args), args)
    monkeypatch.undo()
    engine.run(engine.load_config(args), args)
    assert torch.load(tmp_path / "out/model_final.pth", weights_only=True)["iteration"] == 7


def test_a_signal_during_an_evaluation_ends_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = command("sni", TEST__EVAL_PERIOD=3)
    monkeypatch.setattr(engine.Trainer, "build_evaluator", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"^Interrupted after iteration 3 by SIGTERM; model_0000002.pth was saved"):
        engine.run(engine.load_config(args), args)


def test_statistics_are_averaged_before_checkpoints_and_evaluation(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr("sn2fpn.engine.detectron2.trainer.average_statistics", lambda _: done.append("averaged"))
    trainer = _their_trainer(command("sni", SOLVER__CHECKPOINT_PERIOD=2, SOLVER__MAX_ITER=3, DATASETS__TEST=()))
    save = trainer.checkpointer.save
    monkeypatch.setattr(trainer.checkpointer, "save", lambda *a, **k: (done.append("saved"), save(*a, **k)))
    trainer.train()
    assert done == ["averaged", "averaged", "saved", "averaged", "saved"]


def test_detectron2_refuses_classes_in_another_order(command: Command, tmp_path: Path) -> None:
    args = command("sni", SOLVER__MAX_ITER=1, DATASETS__TEST=())
    engine.run(engine.load_config(args), args)
    file = tmp_path / "out/model_final.pth"
    saved = torch.load(file, weights_only=True)
    torch.save(saved | {"class_names": saved["class_names"][::-1]}, file)
    args = command("sni", "--eval-only", **{"MODEL.WEIGHTS": str(file)})
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS: class 0 is .* in data set 'tiny_val'.*--allow-partial"):
        engine.run(engine.load_config(args), args)
    args = command("sni", "--resume", SOLVER__MAX_ITER=2, DATASETS__TEST=())
    with pytest.raises(UserError, match=r"class 0 is .* in the checkpoint and 'circle' in the training data"):
        engine.run(engine.load_config(args), args)


def test_detectron2s_own_backbone_has_its_norms_and_deformable_stages(command: Command) -> None:
    keys = {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone", "MODEL.FPN.NORM": "nnSyncBN"}
    assert engine.load_config(command("sni", **keys)).MODEL.FPN.NORM == "nnSyncBN"
    keys = {
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False] * 3 + [True],
    }
    assert any(engine.load_config(command("sni", **keys)).MODEL.RESNETS.DEFORM_ON_PER_STAGE)


def test_detectron2_takes_a_model_without_a_pyramid_whose_heads_are_the_usual_ones(command: Command) -> None:
    dc5 = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res5"],
        "MODEL.RPN.IN_FEATURES": ["res5"],
        "MODEL.ROI_HEADS.IN_FEATURES": ["res5"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    }
    args = command("fpn", **dc5)
    assert engine.load_config(args).MODEL.BACKBONE.NAME == "build_resnet_backbone"
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE\.NAME: .*\(C4, DC5\) is served by Detectron2 only"):
        native.load_config(args)
