"""The seam of the Detectron2 engine: its DefaultTrainer on our configuration, backbones and data sets."""

from __future__ import annotations

import functools
import logging
import operator
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.engine import DefaultTrainer, default_setup, hooks
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator, verify_results
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
    GeneralizedRCNNWithTTA,
)
from detectron2.solver import build_optimizer
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint import load_file
from ..data import DatasetCatalog as OurCatalog
from ..data import check_classes
from ..data.catalog import is_slice
from ..data.loader import check_files_exist
from ..data.selection import keep_masked
from ..errors import UserError, argument_names, did_you_mean
from ..integrations.detectron2 import read_config, register_backbones, register_custom, share_dataset
from ..modeling.build import check_device, check_norms
from ..pyramids import backbone_names
from .setup import make_output_dir, validate

__all__ = ["Trainer", "device", "load_config", "run"]

logger = logging.getLogger(__name__)

# key -> the values that Detectron2 can serve
_SERVED: dict[str, tuple[Any, ...]] = {
    "SOLVER.ACCUMULATE_STEPS": (1,),
    "SOLVER.AMP.DTYPE": ("auto", "float16"),
    "SOLVER.CHECKPOINTS_TO_KEEP": (0,),
    "SOLVER.EMA.ENABLED": (False,),
    "TEST.EVALUATOR": ("auto", "coco", "voc"),
    "TEST.BEST_METRIC": ("",),
    "TEST.PATIENCE": (0,),
    "TEST.VAL_LOSS": (False,),
}
# key -> the values that there are; Detectron2 itself fails with tracebacks
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
_EVALUATORS = {"coco": "coco", "pascal_voc": "voc"}  # evaluator_type of a data set -> TEST.EVALUATOR


def load_config(args: Any) -> CfgNode:
    """Detectron2's configuration of a command line: its defaults and the study's <- file <- KEY VALUE pairs.

    Raises:
        UserError: an unknown key, a wrong type, or what Detectron2 cannot serve.
    """
    register_backbones()  # again: a pyramid may have been added since Detectron2 was first met
    cfg = read_config(args.config_file, args.opts)
    validate(cfg, args)
    _check_served(cfg, args)
    return CfgNode(cfg)


def device(cfg: CfgNode) -> str:
    """Where the model of a configuration goes."""
    return cfg.MODEL.DEVICE


def _check_served(cfg: Any, args: Any) -> None:
    for key, served in _SERVED.items():
        value = _value(cfg, key)
        if value not in served:
            raise UserError(
                f"{key}: Detectron2 serves {' or '.join(map(repr, served))}, found {value!r}; "
                "add --engine native to use it"
            )
    registered = {key: [name for name, _ in registry] for key, registry in _REGISTRIES.items()}
    for key, choices in (_CHOICES | registered).items():
        value = _value(cfg, key)
        if value not in choices:
            raise UserError(f"{key}: unknown {value!r}{did_you_mean(value, choices)}")
    if cfg.MODEL.BACKBONE.NAME in backbone_names():
        check_norms(cfg, skip=("ROI_", "SEM_SEG_HEAD"))
    with argument_names({"device": "MODEL.DEVICE"}):
        check_device(cfg.MODEL.DEVICE)
    if cfg.MODEL.DEVICE == "cpu" and not args.eval_only:
        if args.num_gpus * args.num_machines > 1:
            raise UserError(
                f"--num-gpus {args.num_gpus}: Detectron2 trains in several processes on GPUs only; "
                "add --engine native to train on several CPU processes"
            )
        if cfg.SOLVER.AMP.ENABLED:
            raise UserError(
                "SOLVER.AMP.ENABLED: Detectron2 has mixed precision on GPUs only; "
                "set it to False, or add --engine native"
            )


def _value(cfg: Any, key: str) -> Any:
    return functools.reduce(operator.getitem, key.split("."), cfg)


def run(cfg: CfgNode, args: Any, engine: Any = "") -> dict[str, Any] | None:
    """Train (`--resume` to go on) or evaluate (`--eval-only`), as Detectron2's own train_net.py does.

    Args:
        cfg: of `load_config`.
        args: of `default_argument_parser`.
        engine: the log's first line.

    Returns:
        The evaluation's results on the main process, where Detectron2 gives them.
    """
    if torch.distributed.is_initialized():
        comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", args.num_gpus)))
    make_output_dir(cfg.OUTPUT_DIR)
    if cfg.MODEL.WEIGHTS:
        with argument_names({"path": "MODEL.WEIGHTS"}):
            load_file(cfg.MODEL.WEIGHTS)  # Detectron2 runs what a pickle asks for: it only gets what is sound
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="sn2fpn")
    logger.info("%s", engine)
    cfg.freeze()
    default_setup(cfg, args)
    _register_datasets(cfg)
    if args.eval_only:
        return _evaluate(cfg, resume=args.resume)
    with _refusals():
        trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    if cfg.TEST.AUG.ENABLED:
        trainer.register_hooks([hooks.EvalHook(0, lambda: Trainer.test_with_augmentation(cfg, trainer.model))])
    try:
        return trainer.train()
    except FloatingPointError as e:
        raise UserError(
            f"training diverged: {e}. Common remedies: a lower SOLVER.BASE_LR, a longer "
            "SOLVER.WARMUP_ITERS, SOLVER.CLIP_GRADIENTS.ENABLED True"
        ) from e


@contextmanager
def _refusals() -> Iterator[None]:
    """What Detectron2 finds wrong with a configuration, as one message."""
    try:
        yield
    except UserError:
        raise
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        raise UserError(
            f"Detectron2 cannot build this configuration: {type(e).__name__} {e} "
            f"({Path(at.filename).name}, line {at.lineno}; --debug shows more)"
        ) from e


def _evaluate(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    with _refusals():
        model = Trainer.build_model(cfg)
    DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_augmentation(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _register_datasets(cfg: CfgNode) -> None:
    """Make every named set known to Detectron2, and check that its classes are the model's."""
    register_custom(cfg.DATASETS.CUSTOM)
    for key, names in (("DATASETS.TRAIN", cfg.DATASETS.TRAIN), ("DATASETS.TEST", cfg.DATASETS.TEST)):
        for name in names:
            if name not in DatasetCatalog and name not in OurCatalog:
                raise UserError(f"{key}: unknown data set {name!r}{did_you_mean(name, [*DatasetCatalog, *OurCatalog])}")
            share_dataset(name)
    ours = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in OurCatalog]
    if ours and cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        check_classes(cfg, ours)


class Trainer(DefaultTrainer):
    """Detectron2's trainer, with its evaluators chosen by `TEST.EVALUATOR` and our third way to clip gradients."""

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Detectron2's optimizer; CLIP_TYPE "full_norm" bounds the norm over all gradients together."""
        clip = cfg.SOLVER.CLIP_GRADIENTS
        if not (clip.ENABLED and clip.CLIP_TYPE == "full_norm"):
            return build_optimizer(cfg, model)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
        optimizer = build_optimizer(cfg, model)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.register_step_pre_hook(
            lambda *_: torch.nn.utils.clip_grad_norm_(params, clip.CLIP_VALUE, clip.NORM_TYPE) and None
        )
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's loader of images that are there and, for a model with masks, of objects that have one.

        Raises:
            UserError: missing files, or masks that cannot be learned.
        """
        records = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=False,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        check_files_exist(records)
        if cfg.MODEL.MASK_ON:
            records = keep_masked(records, cfg.INPUT.MASK_FORMAT, f"data set {', '.join(cfg.DATASETS.TRAIN)}")
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            records = filter_images_with_only_crowd_annotations(records)
        return build_detection_train_loader(cfg, dataset=records)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, folder: str = "inference") -> Any:
        """The evaluator of `TEST.EVALUATOR`; "auto" takes the one of the set's `evaluator_type`.

        Raises:
            UserError: the set has another type, or Detectron2 cannot score it so.
        """
        kind = cfg.TEST.EVALUATOR
        if kind == "auto":
            found = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
            if found not in _EVALUATORS:
                raise UserError(
                    f"DATASETS.TEST: {dataset_name!r} has the metric {found!r}, "
                    f"found no evaluator for it; set TEST.EVALUATOR to coco or voc"
                )
            kind = _EVALUATORS[found]
        if kind == "coco":
            return COCOEvaluator(
                dataset_name,
                output_dir=str(Path(cfg.OUTPUT_DIR, folder, dataset_name)),
                max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
            )
        if is_slice(dataset_name):
            raise UserError(
                f"DATASETS.TEST: Detectron2's VOC metric scores whole splits, not {dataset_name!r}; "
                "set TEST.EVALUATOR coco, or add --engine native"
            )
        return PascalVOCDetectionEvaluator(dataset_name)

    @classmethod
    def test_with_augmentation(cls, cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
        """Evaluation with `TEST.AUG`; the results' keys end in `_TTA`."""
        evaluators = [cls.build_evaluator(cfg, name, "inference_TTA") for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return {f"{key}_TTA": value for key, value in results.items()}
