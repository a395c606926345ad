"""Checks of what Detectron2 can serve, with one message where Detectron2 itself fails with a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
)

from ...config.values import value_at
from ...data import DatasetCatalog, register_custom
from ...errors import UserError, argument_names, check_choice, did_you_mean
from ...evaluation import score_names
from ...integrations.detectron2 import origin_of_backbone
from ...modeling.build import check_device, check_norms
from ...modeling.roi_heads import check_cascade
from ..testing import metric_names

__all__ = ["check_served", "given_metrics"]

_SERVED: dict[str, tuple[Any, ...]] = {
    "INPUT.COPY_PASTE.PROB": (0.0,),
    "INPUT.FUNCTION": ("",),
    "INPUT.MIN_VISIBLE": (0.0,),
    "INPUT.MOSAIC.PROB": (0.0,),
    "INPUT.PHOTOMETRIC.ENABLED": (False,),
    "INPUT.SCALE_JITTER.ENABLED": (False,),
    "MODEL.COMPILE": (False,),
    "MODEL.CUDA_GRAPHS": (False,),
    "MODEL.ROI_HEADS.CANONICAL_BOX_SIZE": (224,),
    "MODEL.ROI_HEADS.SOFT_NMS.METHOD": ("",),
    "SOLVER.ACCUMULATE_STEPS": (1,),
    "SOLVER.AMP.DTYPE": ("auto", "float16"),
    "SOLVER.EMA.ENABLED": (False,),
    "SOLVER.OPTIMIZER": ("SGD",),
    "SOLVER.ZERO": (False,),
    "TEST.EVALUATOR": ("auto", "coco", "voc"),
    "TEST.PATIENCE": (0,),
    "TEST.VAL_LOSS": (False,),
}
"""The values of the native engine's keys that Detectron2 can serve."""

_OF_OUR_TRUNKS: dict[str, tuple[Any, ...]] = {
    "MODEL.BACKBONE.TRUNK": ("resnet",),
    "MODEL.ESD.ENABLED": (False,),
    "MODEL.FPN.UPSAMPLE": ("nearest",),
}
"""The values of this project's keys that mean Detectron2's own backbones."""
_LIKE_THEIRS = {
    "build_resnet_backbone": "build_sn2_resnet_backbone",
    "build_resnet_fpn_backbone": "build_sn2_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_sn2_fpn_retinanet_backbone",
}
"""This project's backbones that are Detectron2's with the default values."""

_CHOICES: dict[str, Iterable[str]] = {
    "DATALOADER.SAMPLER_TRAIN": (
        "TrainingSampler",
        "RepeatFactorTrainingSampler",
        "RandomSubsetTrainingSampler",
        "WeightedTrainingSampler",
        "WeightedCategoryTrainingSampler",
    ),
    "INPUT.FORMAT": ("BGR", "RGB", "L", "YUV-BT.601"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_norm"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
}
_REGISTRIES: dict[str, Iterable[tuple[str, Any]]] = {
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
}


_KEYPOINT_SCORES = [f"keypoints/{score}" for score in ("AP", "AP50", "AP75", "APm", "APl")]


def check_served(cfg: Any, args: Any) -> None:
    """Check that Detectron2 can run a configuration.

    Args:
        cfg: the configuration.
        args: the command line, from `default_argument_parser`.

    Raises:
        UserError: a value that does not exist, or that only the native engine can serve.
    """
    for key, served in _SERVED.items():
        value = value_at(cfg, key)
        if value not in served:
            raise UserError(
                f"{key}: Detectron2 serves {' or '.join(map(repr, served))}, found {value!r}; "
                "add --engine native to use it"
            )
    if "/AR" in cfg.TEST.BEST_METRIC:
        raise UserError(
            f"TEST.BEST_METRIC: Detectron2 gives no recall, found {cfg.TEST.BEST_METRIC!r}; choose an AP such as "
            "'bbox/AP', or add --engine native"
        )
    registered = {key: [name for name, _ in registry] for key, registry in _REGISTRIES.items()}
    key, name = "MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME
    if name not in registered[key]:
        own = "(--import, or IMPORTS of a study, names the file of a pyramid of your own)"
        raise UserError(f"{key}: unknown value {name!r}{did_you_mean(name, registered[key])} {own}")
    for key, choices in (_CHOICES | registered).items():
        check_choice(key, value_at(cfg, key), choices)
    check_cascade(cfg)
    _check_backbone(cfg)
    with argument_names({"device": "MODEL.DEVICE"}):
        check_device(cfg.MODEL.DEVICE)
    if cfg.MODEL.DEVICE == "cpu" and not args.eval_only:
        _check_cpu_training(cfg, args)


def given_metrics(cfg: Any) -> list[str] | None:
    """Return the names of the metrics that Detectron2's evaluations give, or None if a data set is known to it only."""
    register_custom(cfg.DATASETS.CUSTOM)
    names = cfg.DATASETS.TEST
    if any(name not in DatasetCatalog for name in names):
        return None
    scores = {name: [score for score in score_names(cfg, name) if "/AR" not in score] for name in names}
    if cfg.MODEL.KEYPOINT_ON:
        scores = {name: [*known, *_KEYPOINT_SCORES] for name, known in scores.items()}
    return metric_names(scores)


def _check_backbone(cfg: Any) -> None:
    """Refuse what the configuration asks of the trunk and the pyramid, and what their builder does not read."""
    name = cfg.MODEL.BACKBONE.NAME
    origin = origin_of_backbone(name)
    if origin == "sn2fpn":
        if any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE):
            raise UserError(
                "MODEL.RESNETS.DEFORM_ON_PER_STAGE: this project's trunk has no deformable stages; set "
                "MODEL.BACKBONE.NAME to build_resnet_fpn_backbone, which is Detectron2's"
            )
        check_norms(cfg, skip=("ROI_", "SEM_SEG_HEAD"))
    if origin == "detectron2":
        for key, served in _OF_OUR_TRUNKS.items():
            if value_at(cfg, key) not in served:
                advice = f"MODEL.BACKBONE.NAME {_LIKE_THEIRS[name]}" if name in _LIKE_THEIRS else "--engine native"
                raise UserError(
                    f"{key}: Detectron2's {name} does not read this key, found {value_at(cfg, key)!r}; use {advice}, "
                    f"or leave it at {served[0]!r}"
                )


def _check_cpu_training(cfg: Any, args: Any) -> None:
    if args.num_gpus * args.num_machines > 1:
        raise UserError(
            f"--num-gpus {args.num_gpus}: Detectron2 trains in several processes on GPUs only; "
            "add --engine native to train in several CPU processes"
        )
    if cfg.SOLVER.AMP.ENABLED:
        raise UserError(
            "SOLVER.AMP.ENABLED: Detectron2 has mixed precision on GPUs only; set it to False, or add --engine native"
        )
