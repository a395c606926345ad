"""Tests of the check before a run: mistakes that only need the configuration come before devices, weights and data."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.config.ranges import RANGES, check_ranges
from sn2fpn.engine import Trainer, prepare, run
from sn2fpn.engine.arguments import default_argument_parser
from sn2fpn.engine.config import remarks
from sn2fpn.engine.preflight import check_parts, check_recipe, checked_recipe
from sn2fpn.engine.recipe import CfgRecipe
from sn2fpn.errors import ArgumentError, UserError
from sn2fpn.pyramids import FPN, PYRAMIDS, register_pyramid

_ROOT = Path(__file__).parents[2]
_NOWHERE = {"DATASETS.CUSTOM": [{"NAME": "nowhere", "FORMAT": "coco", "JSON": "no.json", "IMAGES": "no"}]}
_ABSENT = _NOWHERE | {  # neither the GPU nor the weights nor the data exist
    "MODEL.DEVICE": "cuda:77",
    "MODEL.WEIGHTS": "no.pth",
    "DATASETS.TRAIN": ("nowhere",),
    "DATASETS.TEST": ("nowhere",),
}
_LAZY_ABSENT = {
    "train.device": "cuda:77",
    "train.init_checkpoint": "no.pth",
    "dataloader.custom": _NOWHERE["DATASETS.CUSTOM"],
    "dataloader.train.dataset.names": "nowhere",
    "dataloader.test.dataset.names": "nowhere",
}


def _prepare(changes: dict[str, Any], config: str = "configs/mask_rcnn_R50_sni.yaml", *flags: str) -> None:
    opts = [str(x) for pair in (_ABSENT | changes).items() for x in pair]
    argv = ["--engine", "native", *flags, "--config-file", str(_ROOT / config), *opts]
    prepare(default_argument_parser().parse_args(argv))


def _prepare_lazy(changes: dict[str, Any], config: str = "configs/lazy/mask_rcnn_R50_sni.py") -> None:
    opts = [f"{key}={json.dumps(value)}" for key, value in (_LAZY_ABSENT | changes).items()]
    prepare(default_argument_parser().parse_args(["--config-file", str(_ROOT / config), *opts]))


def test_a_right_configuration_passes_without_devices_weights_and_data() -> None:
    _prepare({})
    _prepare_lazy({})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.BACKBONE.NAME", "build_sn2_snii_backbone", "did you mean 'build_sn2_sni_backbone'"),
        ("MODEL.FPN.OUT_CHANNELS", -8, "at least 1, found -8"),
        ("MODEL.RESNETS.DEPTH", 51, "choose from: 18, 34, 50"),
        ("MODEL.SNI.ALPHA", "aera", "did you mean 'area'"),
        ("MODEL.RPN.IN_FEATURES", "['p2', 'p9']", "no output 'p9'"),
        ("MODEL.ROI_HEADS.NAME", "StandardROIHead", "StandardROIHeads"),
        ("INPUT.MIN_SIZE_TRAIN", "()", "found ()"),
        ("INPUT.CROP.TYPE", "relativ", "did you mean 'relative'"),
        ("INPUT.FORMAT", "BRG", "'BRG'"),
        ("INPUT.MASK_FORMAT", "polygons", "polygon"),
        ("DATASETS.TRAIN", "('coco_2017_trian',)", "did you mean 'coco_2017_train'"),
        ("DATASETS.TEST", "('coco_2017_va[:9]',)", "did you mean 'coco_2017_val'"),
        ("DATALOADER.SAMPLER_TRAIN", "TrainSampler", "did you mean 'TrainingSampler'"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupMultistepLR", "did you mean 'WarmupMultiStepLR'"),
        ("SOLVER.WARMUP_METHOD", "linaer", "did you mean 'linear'"),
        ("SOLVER.STEPS", "(5, 3)", "rising iterations of at least 1, found [5, 3]"),
        ("TEST.EVALUATOR", "cocoo", "did you mean 'coco'"),
        ("TEST.BEST_METRIC", "bbox/AP51", "did you mean 'bbox/AP"),
        ("TEST.BEST_METRIC", "val/total_loss", "unknown value 'val/total_loss'"),  # it needs TEST.VAL_LOSS
    ],
)
def test_names_and_shapes_are_checked_first(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as e:
        _prepare({"INPUT.CROP.ENABLED": True, key: value})
    assert key in str(e.value) and words in str(e.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
        ("MODEL.RPN.NMS_THRESH", 7.0),
        ("MODEL.RPN.POST_NMS_TOPK_TRAIN", 0),
        ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 0),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0, 1.0)),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 0),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 0),
        ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.5),
        ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 0),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0, 10.0)),
        ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 0),
        ("MODEL.SNI.ALPHA", -1.0),
        ("INPUT.MIN_SIZE_TRAIN", (-1,)),
    ],
)
def test_what_constructors_refuse_is_named_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(UserError) as e:
        _prepare({key: value})
    assert key in str(e.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.backbone.out_channels", -8, "at least 1"),
        ("model.backbone.bottom_up.depth", 51, "choose from: 18, 34, 50"),
        ("model.roi_heads.in_features", ["p2", "p3", "p4", "p9"], "no output 'p9'"),
        ("dataloader.train.dataset.names", "coco_2017_trian", "did you mean 'coco_2017_train'"),
        ("dataloader.train.sampler", "TrainSampler", "did you mean 'TrainingSampler'"),
        ("dataloader.train.mapper.image_format", "BRG", "BRG"),
        ("dataloader.train.num_workers", -1, "found -1"),
        ("dataloader.evaluator.max_dets_per_image", 0, "a whole number of at least 1, or -1 for no limit, found 0"),
        ("train.best_metric", "bbox/AP51", "did you mean 'bbox/AP"),
        ("train.max_iter", 0, "at least 1, found 0"),
        ("train.ema.decay", 1.0, "at least 0 and below 1, found 1.0"),
        ("train.amp.dtype", "float61", "did you mean 'float16'"),
        ("train.clip_gradients", {"enabled": True, "clip_value": 0.0}, "a number above 0, found 0.0"),
        ("optimizer.lr", 0.0, "a number above 0, found 0.0"),
        ("optimizer.momentum", 1.0, "at least 0 and below 1"),
        ("lr_multiplier.warmup_method", "linaer", "did you mean 'linear'"),
        ("lr_multiplier.scheduler.steps", [0, 5], "rising iterations of at least 1"),
        ("dataloader.evaluator", {"_target_": "sn2fpn.evaluation.COCOEvaluater"}, "did you mean 'COCOEvaluator'"),
        ("dataloader.evaluator", {"_target_": "sn2fpn.evaluation.PascalVOCEvaluator"}, "no argument 'max_dets"),
    ],
)
def test_python_configurations_are_checked_first(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as e:
        _prepare_lazy({key: value})
    assert key in str(e.value) and words in str(e.value)


def _changed(file: Path, changes: dict[str, Any]) -> Path:
    """Write a Python configuration in which nodes have values of any kind."""
    base = str(_ROOT / "configs/lazy/faster_rcnn_R50_fpn.py")
    file.write_text(
        "from omegaconf import OmegaConf\nfrom sn2fpn.config import LazyConfig\n"
        + f"c = LazyConfig.load({base!r})\n"
        + "".join(f"OmegaConf.update(c, {key!r}, {value!r}, merge=False)\n" for key, value in changes.items())
        + "".join(f"{name} = c.{name}\n" for name in ("model", "dataloader", "optimizer", "lr_multiplier", "train"))
    )
    return file


def _images_alone(record: dict[str, Any]) -> dict[str, Any]:
    return record


@pytest.mark.parametrize("flags", [[], ["--eval-only"]])
def test_validation_losses_need_a_mapper_that_gives_the_truth(flags: list[str], tmp_path: Path) -> None:
    mapper = {"_target_": f"{__name__}._images_alone"}
    changes = {"dataloader.test.mapper": mapper, "train.val_loss": True, "train.init_checkpoint": "m.pth"}
    args = default_argument_parser().parse_args([*flags, "--config-file", str(_changed(tmp_path / "c.py", changes))])
    words = r"train\.val_loss: expected dataloader.test.mapper to take .*with_targets"
    with nullcontext() if flags else pytest.raises(UserError, match=words):
        prepare(args)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.max_iter", None, "train.max_iter expects a whole number, found None"),
        ("train.amp.enabled", "False", "train.amp.enabled expects true or false, found 'False'"),
        ("dataloader.train.dataset.filter_empty", "False", "filter_empty: expected true or false, found the text"),
        ("model.backbone.bottom_up.stride_in_1x1", "no", "stride_in_1x1: expected true or false, found the text 'no'"),
        ("model.backbone.out_channels", "256", "out_channels: expected a whole number, found the text '256'"),
    ],
)
def test_null_and_text_in_a_python_configuration_are_refused(key: str, value: Any, words: str, tmp_path: Path) -> None:
    file = _changed(tmp_path / "c.py", {key: value})
    with pytest.raises(UserError, match=re.escape(words)):
        prepare(default_argument_parser().parse_args(["--config-file", str(file)]))


# For each key of the table, values that would train to nothing or end in a traceback, and values that must stay.
_OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    "SEED": (2**32,),
    "VERSION": (1, 3),
    "FLOAT32_PRECISION": ("higher",),
    "DATASETS.TRAIN": ((1,), ("",)),
    "DATASETS.TEST": ((None,), (" ",)),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": (0,),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": (-1,),
    "DATALOADER.NUM_WORKERS": (-1, 10**6),
    "DATALOADER.REPEAT_THRESHOLD": (-0.1, 1.5, float("nan")),
    "SOLVER.MAX_ITER": (0, -5),
    "SOLVER.BASE_LR": (0.0, -0.1, float("nan"), float("inf")),
    "SOLVER.BASE_LR_END": (-0.1, float("nan")),
    "SOLVER.OPTIMIZER": ("Adam", ""),
    "SOLVER.MOMENTUM": (1.0, -0.1, float("nan")),
    "SOLVER.WEIGHT_DECAY": (-1e-4, float("inf")),
    "SOLVER.WEIGHT_DECAY_NORM": (-1e-4,),
    "SOLVER.WEIGHT_DECAY_BIAS": (-1e-4, float("nan")),
    "SOLVER.BIAS_LR_FACTOR": (-1.0,),
    "SOLVER.GAMMA": (0.0, -0.1, float("inf")),
    "SOLVER.STEPS": ((0,), (-3, 5), (1.5,)),
    "SOLVER.NUM_DECAYS": (0,),
    "SOLVER.WARMUP_FACTOR": (-0.1, 2.0),
    "SOLVER.WARMUP_ITERS": (-1,),
    "SOLVER.CHECKPOINT_PERIOD": (0, -1),
    "SOLVER.IMS_PER_BATCH": (0, -2),
    "SOLVER.REFERENCE_WORLD_SIZE": (-1,),
    "SOLVER.ACCUMULATE_STEPS": (0,),
    "SOLVER.CHECKPOINTS_TO_KEEP": (-1,),
    "SOLVER.AMP.DTYPE": ("float61",),
    "SOLVER.EMA.DECAY": (1.0, -0.1),
    "TEST.DETECTIONS_PER_IMAGE": (0, -2),
    "TEST.PATIENCE": (-1,),
    "TEST.AUG.MIN_SIZES": ((), (0,)),
    "TEST.AUG.MAX_SIZE": (0,),
    "TEST.PRECISE_BN.NUM_ITER": (0,),
}


@pytest.mark.parametrize(
    "key", ["TEST.PRECISE_BN.ENABLED", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", "MODEL.ROI_BOX_HEAD.USE_FED_LOSS"]
)
def test_what_only_a_training_reads_is_refused_for_a_training_only(key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}: the native engine serves False, found True"):
        _prepare({key: True})
    _prepare({key: True, "MODEL.WEIGHTS": "m.pth"}, "configs/mask_rcnn_R50_sni.yaml", "--eval-only")


def test_every_range_is_tested() -> None:
    assert _OUT_OF_RANGE.keys() == RANGES.keys()
    check_ranges(get_cfg())


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in _OUT_OF_RANGE.items() for v in values])
def test_values_out_of_range_are_refused(key: str, value: Any) -> None:
    cfg = get_cfg()
    group, _, name = key.rpartition(".")
    node: Any = cfg
    for part in filter(None, group.split(".")):
        node = node[part]
    node[name] = value
    with pytest.raises(ArgumentError) as e:
        check_ranges(cfg)
    item = value[0] if isinstance(value, tuple) and e.value.argument != key else value  # of a list, the item is named
    assert e.value.argument in (key, f"{key}[0]") and repr(item) in e.value.problem


@pytest.mark.parametrize(
    "changes",
    [
        {"INPUT.MIN_SIZE_TRAIN": (0,), "INPUT.MIN_SIZE_TEST": 0},  # images keep their size
        {"SOLVER.MAX_ITER": 3},  # shorter than the warm-up, and before all steps
        {"SOLVER.STEPS": (), "SOLVER.WARMUP_ITERS": 0, "SOLVER.WARMUP_FACTOR": 0.0},
        {"SOLVER.STEPS": (90000,)},
        {"SOLVER.LR_SCHEDULER_NAME": "WarmupStepWithFixedGammaLR"},
        {"SOLVER.MOMENTUM": 0.0, "SOLVER.WEIGHT_DECAY": 0.0, "SOLVER.BIAS_LR_FACTOR": 0.0},
        {"TEST.EVAL_PERIOD": -1},
        {"TEST.DETECTIONS_PER_IMAGE": -1},
        {"MODEL.BACKBONE.NAME": "build_sn2_fpn_retinanet_backbone", "SOLVER.GAMMA": 1.0},
        {"TEST.BEST_METRIC": "val/total_loss", "TEST.VAL_LOSS": True},
        {"TEST.BEST_METRIC": "segm/APs"},
        {"DATASETS.TEST": ("coco_2017_val", "nowhere"), "TEST.BEST_METRIC": "nowhere/bbox/AP"},
        {"SOLVER.REFERENCE_WORLD_SIZE": 8, "SOLVER.IMS_PER_BATCH": 16},
    ],
)
def test_values_that_train_stay_accepted(changes: dict[str, Any]) -> None:
    _prepare(changes)


def test_the_schedule_is_checked_for_the_processes_of_the_run() -> None:
    changes = {"SOLVER.REFERENCE_WORLD_SIZE": 8, "SOLVER.IMS_PER_BATCH": 8, "SOLVER.CHECKPOINT_PERIOD": 1}
    _prepare(changes, "configs/mask_rcnn_R50_sni.yaml", "--num-gpus", "8")
    with pytest.raises(UserError, match=r"SOLVER\.CHECKPOINT_PERIOD: expected a whole number of at least 1, found 0"):
        _prepare(changes, "configs/mask_rcnn_R50_sni.yaml", "--num-gpus", "32")


@pytest.mark.parametrize(("reference", "processes"), [(3, 1), (3, 2), (32, 8)])
def test_a_batch_that_the_reference_does_not_divide_is_refused(reference: int, processes: int) -> None:
    changes = {"SOLVER.REFERENCE_WORLD_SIZE": reference, "SOLVER.IMS_PER_BATCH": 16}
    expected = rf"SOLVER\.REFERENCE_WORLD_SIZE: expected a divisor of SOLVER\.IMS_PER_BATCH 16.*found {reference}$"
    with pytest.raises(UserError, match=expected):
        _prepare(changes, "configs/mask_rcnn_R50_sni.yaml", "--num-gpus", str(processes))


def test_the_check_leaves_no_trace_and_takes_no_time(caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(_ROOT / "configs/faster_rcnn_R50_sni_esd.yaml"))  # its trunk logs a warning
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN = ()
    recipe = CfgRecipe(cfg)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    times = []
    with caplog.at_level(logging.DEBUG, "sn2fpn"):
        for _ in range(3):
            started = time.perf_counter()
            check_recipe(recipe)
            times.append(time.perf_counter() - started)
    assert min(times) < 1
    assert not caplog.records
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1] and (np.random.get_state()[1] == states[2]).all()
    assert recipe.cfg.MODEL.DEVICE == cfg.MODEL.DEVICE == "cuda"


class _NeedsNumbers(FPN):
    """A pyramid that cannot be built on the meta device, since it reads a random number."""

    def __init__(self, *args: Any, fail: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.shift = nn.Parameter(torch.zeros(int(torch.rand(1).item()) + 1))
        if fail == "user":
            raise ArgumentError("fail", "was refused")
        if fail:
            raise ZeroDivisionError


@pytest.mark.parametrize(("fail", "refused"), [("", False), ("user", True), ("other", False)])
def test_modules_that_need_numbers_are_built_on_the_cpu(
    fail: str, refused: bool, tiny_cfg: Callable[..., CfgNode]
) -> None:
    register_pyramid("numbers", fail=fail)(_NeedsNumbers)
    try:
        recipe = CfgRecipe(tiny_cfg({"MODEL.BACKBONE.NAME": "build_sn2_numbers_backbone"}))
        state = torch.get_rng_state()
        if refused:
            with pytest.raises(ArgumentError, match="was refused"):
                check_parts(recipe)
        else:
            check_parts(recipe)  # what else is wrong with a user's own module, the run shows with its traceback
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        PYRAMIDS.remove("numbers")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.BACKBONE.NAME", "build_sn2_snii_backbone", "did you mean 'build_sn2_sni_backbone'"),
        ("SOLVER.MAX_ITER", 0, "at least 1"),
        ("TEST.PATIENCE", -3, "found -3"),
        ("TEST.BEST_METRIC", "bbox/AP51", "did you mean"),
        ("DATASETS.TRAIN", ["tiny_trian"], "did you mean 'tiny_train'"),
        ("SOLVER.IMS_PER_BATCH", 3, "a multiple of 2"),
    ],
)
@pytest.mark.parametrize("called", [Trainer, lambda cfg: run(cfg, default_argument_parser().parse_args([]))])
def test_calls_from_python_are_checked_like_the_command_line(
    called: Callable[[CfgNode], Any], key: str, value: Any, words: str, tiny_cfg: Callable[..., CfgNode]
) -> None:
    cfg = tiny_cfg({"MODEL.DEVICE": "cuda:77", "SOLVER.ACCUMULATE_STEPS": 2, key: value})
    with pytest.raises(UserError) as e:
        called(cfg)
    assert key in str(e.value) and words in str(e.value)
    assert not Path(cfg.OUTPUT_DIR).exists()


def test_remarks_name_what_has_no_effect() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(_ROOT / "configs/faster_rcnn_R50_fpn.yaml"))
    assert remarks(cfg) == []
    cfg.MODEL.SNI.ALPHA, cfg.MODEL.IHP.DEPTHS, cfg.MODEL.FPN.UPSAMPLE = "learned", (1, 1, 1, 1), "bilinear"
    (line,) = remarks(cfg)
    assert "MODEL.IHP.DEPTHS, MODEL.SNI.ALPHA, which therefore have no effect" in line and "UPSAMPLE" not in line
    cfg.MODEL.BACKBONE.NAME = "build_sn2_sni_backbone"
    (line,) = remarks(cfg)
    assert "MODEL.IHP.DEPTHS" in line and "MODEL.SNI" not in line
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.IHP.DEPTHS = "build_sn2_sni_retinanet_backbone", (1, 1, 2, 3)
    (line,) = remarks(cfg)
    assert "p6 and p7" in line and line.endswith("is build_sn2_sni_backbone")


def test_remarks_name_keys_of_the_trunk_and_of_the_pyramid_without_effect() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.ESD.MODE", 2, "MODEL.ROI_HEADS.SOFT_NMS.SIGMA", 0.3])
    assert remarks(cfg) == [
        "MODEL.ESD.ENABLED is False, which leaves MODEL.ESD.MODE without effect",
        "MODEL.ROI_HEADS.SOFT_NMS.METHOD is '', which leaves MODEL.ROI_HEADS.SOFT_NMS.SIGMA without effect",
    ]
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.BACKBONE.TRUNK", "timm/resnet10t", "MODEL.RESNETS.DEPTH", 18])
    (line,) = remarks(cfg)
    assert line.startswith("MODEL.BACKBONE.TRUNK timm/resnet10t does not read MODEL.RESNETS.DEPTH, which")
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_sn2_bifpn_backbone", "MODEL.FPN.NORM", "GN"])
    (line,) = remarks(cfg)
    assert line.endswith("reads MODEL.BIFPN.NORM in place of MODEL.FPN.NORM, which therefore has no effect")
    cfg.MODEL.FPN.NORM = cfg.MODEL.BIFPN.NORM
    assert remarks(cfg) == []


def test_remarks_name_the_keys_of_an_augmentation_that_is_off() -> None:
    cfg = get_cfg()
    assert remarks(cfg) == []
    cfg.merge_from_list(["INPUT.COPY_PASTE.SHARE", 0.9, "INPUT.PHOTOMETRIC.HUE", "(-0.1, 0.1)"])
    cfg.merge_from_list(["INPUT.SCALE_JITTER.ENABLED", True, "INPUT.MIN_SIZE_TRAIN", "(300,)"])
    assert remarks(cfg) == [
        "INPUT.PHOTOMETRIC.ENABLED is False, which leaves INPUT.PHOTOMETRIC.HUE without effect",
        "INPUT.COPY_PASTE.PROB is 0.0, which leaves INPUT.COPY_PASTE.SHARE without effect",
        "INPUT.SCALE_JITTER.ENABLED is True, which leaves INPUT.MIN_SIZE_TRAIN without effect",
    ]


def test_remarks_name_the_keys_of_other_parts_that_are_off() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_norm", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 10.0])
    cfg.merge_from_list(["SOLVER.EMA.DECAY", 0.9, "SOLVER.AMP.DTYPE", "bfloat16", "TEST.AUG.MAX_SIZE", 900])
    cfg.merge_from_list(["TEST.PATIENCE", 3])
    assert remarks(cfg) == [
        "SOLVER.AMP.ENABLED is False, which leaves SOLVER.AMP.DTYPE without effect",
        "SOLVER.CLIP_GRADIENTS.ENABLED is False, which leaves SOLVER.CLIP_GRADIENTS.CLIP_TYPE, "
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE without effect",
        "SOLVER.EMA.ENABLED is False, which leaves SOLVER.EMA.DECAY without effect",
        "TEST.AUG.ENABLED is False, which leaves TEST.AUG.MAX_SIZE without effect",
        "TEST.EVAL_PERIOD is 0, which leaves TEST.PATIENCE without effect",
    ]


@pytest.mark.parametrize(("key", "value"), [("PHOTOMETRIC.HUE", "(-1, 1)"), ("SCALE_JITTER.MIN_SCALE", 3.0)])
def test_a_wrong_value_of_an_augmentation_that_is_off_is_a_mistake(
    key: str, value: object, tiny_cfg: Callable[..., CfgNode]
) -> None:
    with pytest.raises(UserError, match=rf"INPUT\.{key.split('.')[0]}\.(HUE|MAX_SCALE)"):
        checked_recipe(tiny_cfg({f"INPUT.{key}": value}))


def test_the_run_logs_its_remarks(tiny_cfg: Callable[..., CfgNode], caplog: pytest.LogCaptureFixture) -> None:
    CfgRecipe(tiny_cfg({"MODEL.IHP.DEPTHS": (1, 1, 1, 1)})).announce()
    assert [r.levelname for r in caplog.records if "MODEL.IHP.DEPTHS" in r.getMessage()] == ["WARNING"]


def test_eval_only_does_not_look_at_the_training() -> None:
    args = ("configs/mask_rcnn_R50_sni.yaml", "--eval-only")
    _prepare({"SOLVER.LR_SCHEDULER_NAME": "Mine"}, *args)
    _prepare({"TEST.PATIENCE": 5, "DATASETS.TEST": ["shapes_val", "shapes_train"]}, *args)  # bbox/AP has two names
    _prepare({"TEST.PATIENCE": 5, "TEST.BEST_METRIC": ""}, *args)
    with pytest.raises(UserError, match=r"TEST\.EVALUATOR"):
        _prepare({"TEST.EVALUATOR": "mine"}, *args)
