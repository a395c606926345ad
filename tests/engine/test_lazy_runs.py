"""Tests of Python configurations: each gives the same model, data and training as its YAML twin, and runs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from sn2fpn.config import CfgNode, LazyConfig, get_cfg
from sn2fpn.config.calls import target_of
from sn2fpn.engine import default_argument_parser, main, run
from sn2fpn.engine.lazy import LazyRecipe, load_recipe
from sn2fpn.engine.lazy_checks import COUNTERPARTS
from sn2fpn.engine.recipe import CfgRecipe, Recipe
from sn2fpn.engine.testing import validation_losses
from sn2fpn.errors import UserError
from sn2fpn.pyramids import PYRAMIDS
from sn2fpn.signatures import keyword_parameters
from sn2fpn.structures import BitMasks, Boxes, Instances

_ROOT = Path(__file__).parents[2]
_LAZY = _ROOT / "configs/lazy"
_TWINS = {f"{family}_rcnn_R50_{pyramid}": "" for family in ("faster", "mask") for pyramid in PYRAMIDS}
_TWINS |= {f"cascade_rcnn_R50_{pyramid}": "" for pyramid in ("fpn", "sni")}
_TWINS |= {"quick_shapes": "quick/faster_rcnn_R18_sni_shapes"}
_QUICK = ("quick_shapes", "faster_rcnn_R50_fpn", "faster_rcnn_R50_bifpn", "mask_rcnn_R50_sni")
_ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def _args(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"resume": False, "eval_only": False, "num_gpus": 1, "num_machines": 1} | changes)


def _twins(name: str) -> tuple[CfgRecipe, LazyRecipe]:
    cfg = get_cfg()
    cfg.merge_from_file(str(_ROOT / f"configs/{_TWINS[name] or name}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    return CfgRecipe(cfg), LazyRecipe(str(_LAZY / f"{name}.py"), ["train.device=cpu"])


def _batch(masks: bool) -> list[dict[str, Any]]:
    """Two images with two objects each."""
    out = []
    for i in range(2):
        target = Instances(
            (96, 128), gt_boxes=Boxes([[8, 8, 60 + i, 70], [70, 30, 120, 90]]), gt_classes=torch.tensor([i, 3])
        )
        if masks:
            grid = np.zeros((2, 96, 128), dtype=bool)
            grid[0, 8:70, 8:60], grid[1, 40:90, 70:110] = True, True
            target.gt_masks = BitMasks(grid)
        image = torch.randint(0, 256, (3, 96, 128), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
        out.append({"image": image, "height": 96, "width": 128, "instances": target})
    return out


def _losses(
    recipe: Recipe, batch: list[dict[str, Any]], weights: dict[str, torch.Tensor] | None = None
) -> tuple[torch.nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    model = recipe.build_model()
    if weights:
        model.load_state_dict(weights)
        torch.manual_seed(0)
    return model, {k: v.item() for k, v in model(batch).items()}


@pytest.mark.parametrize(
    "name", [n if n in _QUICK else pytest.param(n, marks=pytest.mark.slow) for n in sorted(_TWINS)]
)
def test_twins_have_the_same_parameters_losses_optimizer_and_schedule(name: str) -> None:
    (yaml_model, yaml_losses), (lazy_model, lazy_losses) = (
        _losses(recipe, _batch("mask" in name)) for recipe in _twins(name)
    )
    theirs, mine = yaml_model.state_dict(), lazy_model.state_dict()
    assert list(theirs) == list(mine)
    if name.startswith("cascade"):  # Lists make all box heads before the predictors, and draw other fresh weights.
        (_, yaml_losses), (lazy_model, lazy_losses) = (_losses(r, _batch(False), theirs) for r in _twins(name))
        mine = lazy_model.state_dict()
    assert all(torch.equal(theirs[k], mine[k]) for k in theirs)
    assert [p.requires_grad for p in yaml_model.parameters()] == [p.requires_grad for p in lazy_model.parameters()]
    assert yaml_losses == lazy_losses
    found = []
    for recipe, model in zip(_twins(name), (yaml_model, lazy_model)):
        names = {p: n for n, p in model.named_parameters()}
        optimizer = recipe.build_optimizer(model)
        scheduler = recipe.build_scheduler(optimizer)
        rates = []
        for iteration in (0, 50, 100, 540, 701, 1000, 60000, 85000):
            scheduler.last_epoch = iteration
            rates.append(scheduler.get_lr())
        groups = [
            ({k: v for k, v in g.items() if k != "params"}, [names[p] for p in g["params"]])
            for g in optimizer.param_groups
        ]
        options = {k: v for k, v in vars(recipe.options).items() if k not in ("keys", "output_dir")}
        found.append((groups, rates, options))
    assert found[0] == found[1]


def test_a_loader_of_ones_own_need_not_tell_its_images_per_batch(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import itertools\n"
        "from sn2fpn.config import LazyCall as L, LazyConfig\n"
        f"_base = LazyConfig.load({str(_LAZY / 'quick_shapes.py')!r})\n"
        "model, optimizer, lr_multiplier, train = _base.model, _base.optimizer, _base.lr_multiplier, _base.train\n"
        "dataloader = dict(train=L(itertools.cycle)(iterable=[[]]), test=None, evaluator=None)\n"
    )
    args = default_argument_parser().parse_args(["--config-file", str(file), "train.accumulate_steps=3"])
    assert load_recipe(args).options.images_per_batch == 0


@pytest.fixture
def tiny_overrides(tiny_keys: dict[str, Any], tmp_path: Path) -> Callable[..., list[str]]:
    """`tiny_overrides(changes)` returns the overrides that make quick_shapes.py the small run of `tiny_keys`."""
    keys = {
        "dataloader.custom": tiny_keys["DATASETS.CUSTOM"],
        "dataloader.train.dataset.names": ["tiny_train"],
        "dataloader.test.dataset.names": "tiny_val",
        "dataloader.train.num_workers": 0,
        "dataloader.test.num_workers": 0,
        "dataloader.train.total_batch_size": 2,
        "dataloader.train.mapper.augmentations.0.short_edges": [96],
        "dataloader.test.mapper.augmentations.0.short_edges": 96,
        "model.backbone.out_channels": 16,
        "model.roi_heads.box_head.fc_dims": [32, 32],
        "model.proposal_generator.post_nms_topk": [60, 40],
        "model.roi_heads.batch_size_per_image": 32,
        "lr_multiplier.warmup_iters": 5,
        "lr_multiplier.scheduler.steps": [],
        "train.max_iter": 8,
        "train.output_dir": str(tmp_path / "lazy"),
    }

    def make(changes: dict[str, Any] | None = None) -> list[str]:
        return [f"{k}={json.dumps(v)}" for k, v in (keys | (changes or {})).items()]

    return make


def _recipe(overrides: list[str], config: str = "quick_shapes", **flags: Any) -> LazyRecipe:
    return load_recipe(_args(config_file=str(_LAZY / f"{config}.py"), opts=overrides, **flags))


def _totals(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {d["iteration"]: d["total_loss"] for d in lines if "total_loss" in d}


@pytest.mark.slow
@pytest.mark.pictures
def test_twins_train_alike(
    tiny_cfg: Callable[..., CfgNode], tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    by_yaml = run(
        tiny_cfg(
            {"TEST.BEST_METRIC": "bbox/AP50", "TEST.EVAL_PERIOD": 4, "SOLVER.EMA.ENABLED": True, "TEST.VAL_LOSS": True}
        ),
        _args(),
    )
    by_lazy = run(
        _recipe(
            tiny_overrides(
                {
                    "train.best_metric": "bbox/AP50",
                    "train.eval_period": 4,
                    "train.ema.enabled": True,
                    "train.val_loss": True,
                }
            )
        ),
        _args(),
    )
    assert _totals(tmp_path / "out") == _totals(tmp_path / "lazy")
    assert by_lazy["tiny_val"]["bbox"] == pytest.approx(by_yaml["tiny_val"]["bbox"], nan_ok=True)
    names = [{p.name for p in (tmp_path / d).iterdir() if "tfevents" not in p.name} for d in ("out", "lazy")]
    assert names[0] == names[1] >= {"config.yaml", "model_best.pth", "predictions.png", "curves.png", "inference"}
    # the file that a run writes is a configuration itself
    again = LazyConfig.load(tmp_path / "lazy/config.yaml")
    assert again.train.max_iter == 8 and again.model.backbone._target_ == "sn2fpn.pyramids.SNIFPN"
    # a checkpoint of one twin evaluates as the other
    weights = str(tmp_path / "out/model_final.pth")
    changes = {"train.init_checkpoint": weights, "train.ema.enabled": True, "train.output_dir": str(tmp_path / "eval")}
    results = run(_recipe(tiny_overrides(changes), eval_only=True), _args(eval_only=True))
    assert results["tiny_val"]["bbox"] == pytest.approx(by_yaml["tiny_val"]["bbox"], nan_ok=True)


@pytest.mark.slow
def test_a_run_resumes(tiny_overrides: Callable[..., list[str]], tmp_path: Path) -> None:
    off = {"dataloader.test.dataset.names": ""}  # no evaluation
    run(_recipe(tiny_overrides(off | {"train.output_dir": str(tmp_path / "whole"), "train.log_period": 1})), _args())
    # another max_iter would change the schedule, so the interruption is simulated
    cut = tiny_overrides(off | {"train.checkpointer.period": 4, "train.log_period": 1})
    run(_recipe(cut), _args())
    (tmp_path / "lazy/last_checkpoint").write_text("model_0000003.pth")
    (tmp_path / "lazy/metrics.json").unlink()
    run(_recipe(cut, resume=True), _args(resume=True))
    assert sorted(_totals(tmp_path / "lazy")) == [4, 5, 6, 7]
    ends = [torch.load(tmp_path / d / "model_final.pth", weights_only=True)["model"] for d in ("whole", "lazy")]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def test_masks_from_a_python_config_end_to_end(tiny_overrides: Callable[..., list[str]], tmp_path: Path) -> None:
    """Train, resume and evaluate."""
    small = {
        "train.device": "cpu",
        "train.init_checkpoint": "",
        "train.seed": 1,
        "train.max_iter": 4,
        "train.best_metric": "segm/AP50",
        "train.checkpointer.period": 2,
        "train.log_period": 1,
        "optimizer.lr": 0.01,
        "model.backbone.norm": "BN",
        "model.roi_heads.num_classes": 6,
        "model.roi_heads.max_detections": 10,
        "model.backbone.bottom_up.depth": 18,
        "model.backbone.bottom_up.norm": "BN",
        "model.backbone.bottom_up.freeze_at": 0,
        "model.roi_heads.mask_head.conv_dims": [16],
        "model.roi_heads.mask_head.deconv_dim": 16,
        "model.roi_heads.score_thresh": 0.0,
        "dataloader.train.mapper.augmentations.0.max_size": 160,
        "dataloader.test.mapper.augmentations.0.max_size": 160,
    }
    name = "mask_rcnn_R50_sni"
    scores = run(_recipe(tiny_overrides(small), name), _args())["tiny_val"]
    assert list(scores) == ["bbox", "segm"] and scores["segm"].keys() == scores["bbox"].keys()
    out = tmp_path / "lazy"
    log = (out / "log.txt").read_text()
    assert "Training data tiny_train:\nclass " in log and "copypaste: Task: segm" in log
    whole = torch.load(out / "model_final.pth", weights_only=True)["model"]
    saved = json.loads((out / "inference/tiny_val/coco_instances_results.json").read_text())
    assert saved and all(set(found["segmentation"]) == {"size", "counts"} for found in saved)
    (out / "last_checkpoint").write_text("model_0000001.pth")
    (out / "metrics.json").unlink()
    again = run(_recipe(tiny_overrides(small), name, resume=True), _args(resume=True))["tiny_val"]
    assert sorted(_totals(out)) == [2, 3]
    resumed = torch.load(out / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert again["segm"] == pytest.approx(scores["segm"], nan_ok=True)
    given = tiny_overrides(small | {"train.init_checkpoint": str(out / "model_final.pth")})
    found = run(_recipe(given, name, eval_only=True), _args(eval_only=True))["tiny_val"]
    assert found["segm"] == pytest.approx(scores["segm"], nan_ok=True)


def test_several_test_sets_and_other_processes(tiny_overrides: Callable[..., list[str]], tmp_path: Path) -> None:
    recipe = _recipe(tiny_overrides({"dataloader.test.dataset.names": ["tiny_val", "tiny_train[:3]"]}))
    recipe = pickle.loads(pickle.dumps(recipe))  # as another process gets it
    recipe.check_data(eval_only=False)
    first, second = recipe.test_sets()
    assert (first.name, second.name) == ("tiny_val", "tiny_train[:3]")
    assert (len(first.loader()), len(second.loader())) == (4, 3)
    assert second.evaluator(tmp_path).reset() is None
    losses = validation_losses([second], recipe.build_model(), recipe.options)
    assert losses["val/total_loss"] > 0


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        (
            {"model.roi_heads.num_classes": 7},
            {},
            ["model.roi_heads.num_classes: expected 6", "data set 'tiny_train'", "found 7"],
        ),
        (
            {"dataloader.train.dataset.names": "tiny_trian"},
            {},
            ["dataloader.train.dataset.names", "'tiny_trian'", "did you mean 'tiny_train'"],
        ),
        ({"train.init_checkpoint": "nowhere.pth"}, {}, ["train.init_checkpoint", "nowhere.pth"]),
        (
            {"model.backbone.alpha": "aera"},
            {},
            ["model.backbone", "(sn2fpn.pyramids.SNIFPN): ", "'aera'", "did you mean 'area'"],
        ),
        (
            {"model.backbone.bottom_up.depth": 20},
            {},
            ["model.backbone.bottom_up", "(sn2fpn.modeling.trunk.make_resnet): ", "20", "18"],
        ),
        ({"model.backbone.out_channels": -3}, {}, ["model.backbone.out_channels", "at least 1", "-3"]),
        ({"model.input_format": "BRG"}, {}, ["model.input_format (", "'BRG'", "did you mean 'BGR'"]),
        (
            {"model.roi_heads.in_features": ["p2", "p3", "p4", "p9"]},
            {},
            ["model.roi_heads.in_features (", "no output 'p9'"],
        ),
        (
            {"model.proposal_generator.in_features": ["p3", "p4", "p5", "p6"]},
            {},
            [
                "model.proposal_generator.in_features (",
                "each stride of anchor_generator (4, 8, 16, 32, 64), found ['p3'",
            ],
        ),
        (
            {"model.proposal_generator.anchor_generator.strides": [8, 16, 32, 64, 128]},
            {},
            ["model.proposal_generator (", "): AnchorGenerator has strides [8, 16, 32, 64, 128]", "[4, 8, 16, 32, 64]"],
        ),
        (
            {"model.proposal_generator.matcher.thresholds": [0.7, 0.3]},
            {},
            ["model.proposal_generator.matcher.thresholds (", "): expected one or more rising IoUs, found [0.7, 0.3]"],
        ),
        ({"optimizer.lr": -1}, {}, ["optimizer.lr: expected a number above 0, found -1"]),
        (
            {"lr_multiplier.scheduler.steps": [5, 3]},
            {},
            [
                "lr_multiplier.scheduler.steps (sn2fpn.engine.solver.multi_step): ",
                "expected rising iterations of at least 1, found [5, 3]",
            ],
        ),
        ({"dataloader.custom": [{"NAME": "x", "FORMAT": "coc"}]}, {}, ["dataloader.custom (x)", "did you mean 'coco'"]),
        ({"model.backbone._target_": "sn2fpn.pyramids.FPN"}, {}, ["model.backbone", "FPN", "no argument 'alpha'"]),
        ({"train.clip_gradients.clip_type": "vlaue"}, {}, ["train.clip_gradients.clip_type", "did you mean 'value'"]),
        ({"train.amp.dtype": "float61"}, {}, ["train.amp.dtype", "did you mean 'float16'"]),
        ({"train.max_iter": 0}, {}, ["train.max_iter: expected a whole number of at least 1, found 0"]),
        ({"train.patience": 2, "train.best_metric": ""}, {}, ["train.patience", "train.best_metric"]),
        ({"train.ema.decay": 1.5}, {}, ["train.ema.decay: expected a number of at least 0 and below 1, found 1.5"]),
        ({"train.max_iter": "${train.max_itre}"}, {}, ["train.max_it", "max_itre"]),
        ({"model.roi_heads.box_head.fc_dims": [16]}, {}, ["model.roi_heads.box_predictor.in_features: ", "fc_dims.1"]),
        (
            {"dataloader.train.total_batch_size": 3},
            {"num_gpus": 2},
            ["dataloader.train.total_batch_size: 3 images", "multiple of 2"],
        ),
        ({}, {"eval_only": True}, ["train.init_checkpoint is empty", "an evaluation needs a checkpoint"]),
        ({"train.device": "cdua"}, {}, ["train.device", "'cdua'", "did you mean 'cuda'"]),
    ],
)
def test_mistakes_are_named_in_the_words_of_the_config(
    changes: dict[str, Any], flags: dict[str, Any], words: list[str], tiny_overrides: Callable[..., list[str]]
) -> None:
    with pytest.raises(UserError) as e:
        run(_recipe(tiny_overrides(changes), **flags), _args(**flags))
    for word in words:
        assert word in str(e.value)


def test_keys_of_yaml_are_answered_with_keys_that_exist() -> None:
    cfg = LazyConfig.load(str(_LAZY / "quick_shapes.py"))
    for yaml_key, key in COUNTERPARTS.items():
        group: Any = get_cfg()
        for part in yaml_key.split("."):
            group = group[part]
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        assert name in node or name in keyword_parameters(target_of(node)), key
    for change in (["MODEL.WEIGHTS=x.pth"], ["MODEL.WEIGHTS", "x.pth"]):
        with pytest.raises(
            UserError, match=r"^command line: MODEL\.WEIGHTS is .*; write train\.init_checkpoint=x\.pth$"
        ):
            _recipe(change, eval_only=True)


def test_misspelt_options_are_named_and_other_keys_are_the_users_own(
    tiny_overrides: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = _recipe(tiny_overrides({}))
    for key in ("eval_perod", "amp.enable", "clip_gradients.norm_type", "crops"):
        OmegaConf.update(recipe.cfg, f"train.{key}", 1, force_add=True)
    with caplog.at_level(logging.WARNING):
        recipe.announce()
    start = "The configuration has train"
    assert [line for line in caplog.messages if line.startswith(start)] == [
        f"{start}.amp.enable, which the native engine does not read; did you mean 'enabled'?",
        f"{start}.eval_perod, which the native engine does not read; did you mean 'eval_period'?",
    ]


def test_arguments_of_ddp_are_checked_before_the_run(tmp_path: Path) -> None:
    shutil.copytree(_LAZY, tmp_path / "lazy")
    mine = tmp_path / "lazy/quick_shapes.py"
    mine.write_text(f"{mine.read_text()}\ntrain.ddp = dict(find_unused_parameter=True)\n")
    words = (
        r"^train\.ddp: DistributedDataParallel takes no argument 'find_unused_parameter'; did you mean .*parameters'"
    )
    with pytest.raises(UserError, match=words):
        LazyRecipe(str(mine)).check_settings(eval_only=False)


def test_the_picture_of_a_run_warns_of_more_objects_than_the_model_can_find(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = _recipe(tiny_overrides({"model.roi_heads.max_detections": 1}))
    recipe.check_data(eval_only=False)
    with caplog.at_level(logging.WARNING):
        recipe.draw_predictions(recipe.build_model(), tmp_path / "predictions.png")
    assert "(max_detections of the RoI heads) allows only 1 detection per image" in caplog.text


def test_a_config_without_its_parts_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("train = dict(max_iter=1)")
    with pytest.raises(UserError, match=r"part\.py: has no 'model' to train with; choose from: train"):
        LazyRecipe(str(tmp_path / "part.py"))


@pytest.mark.parametrize(
    ("overrides", "flags", "words"),
    [
        (["model=null"], {}, r"quick_shapes\.py: model: expected a node with arguments, found None"),
        (["dataloader.evaluator=null", "train.init_checkpoint=m.pth"], {"eval_only": True}, "^dataloader.evaluator: "),
    ],
)
def test_parts_that_are_null_are_named(overrides: list[str], flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        _recipe(overrides, **flags)


def test_no_clipping_may_be_null() -> None:
    assert _recipe(["train.clip_gradients=null"]).build_gradient_clipper() is None


@pytest.mark.slow
def test_the_program_runs_a_python_config(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, str(_ROOT / "train_net.py"), "--config-file", str(_LAZY / "quick_shapes.py")]
    overrides = tiny_overrides({"train.max_iter": 4, "model.backbone.alpha": 0.5, "optimizer.lr": 0.01})
    done = subprocess.run(
        [*command, "--num-gpus", "2", *overrides], env=_ENV, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "lazy/metrics.json").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines if '"lr"' in line]
    assert rates == pytest.approx([0.01 * 0.001, 0.01 * (0.001 + 0.999 * 3 / 4)])  # in iterations 1 and 4 of 4
    state = torch.load(tmp_path / "lazy/model_final.pth", weights_only=True)
    assert state["iteration"] == 3
    assert "alpha: 0.5" in (tmp_path / "lazy/config.yaml").read_text()
    assert main([*command[2:], "model.backbone.alpa=1"]) == 2
    assert capsys.readouterr().err == (
        "error: command line: unknown config key 'model.backbone.alpa'; did you mean 'model.backbone.alpha'?\n"
    )
