"""Detectron2's trainer, with this project's evaluators, checks of the data and clipping of gradients."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.engine import DefaultTrainer
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.solver import build_optimizer

from ...data.catalog import is_slice
from ...data.files import check_files_exist
from ...data.selection import keep_learnable, require_annotations
from ...errors import UserError
from .checkpoints import Checkpointer, records

__all__ = ["Trainer"]

_EVALUATORS = {"coco": "coco", "pascal_voc": "voc"}
"""The value of `TEST.EVALUATOR` for the `evaluator_type` of a data set."""


class Trainer(DefaultTrainer):
    """Detectron2's trainer for a configuration that has the study's keys."""

    def build_hooks(self) -> list[Any]:
        """Return Detectron2's hooks. Checkpoints are written by this project's class, and the newest ones are kept."""
        parts = {"trainer": weakref.proxy(self), **records(self.cfg)}
        self.checkpointer = Checkpointer(self.checkpointer.model, self.cfg.OUTPUT_DIR, **parts)
        found = super().build_hooks()
        for hook in found:
            if isinstance(hook, PeriodicCheckpointer):
                hook.max_to_keep = self.cfg.SOLVER.CHECKPOINTS_TO_KEEP or None
        return found

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return Detectron2's optimizer; CLIP_TYPE "full_norm" bounds the norm over all gradients together."""
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
        """Return Detectron2's loader of images that exist and, for a model with masks, of objects that have one.

        Raises:
            UserError: files are missing, or no object has a mask that can be learned.
        """
        records = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=False,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        require_annotations(records, f"data set {', '.join(cfg.DATASETS.TRAIN)}")
        check_files_exist(records)
        records = keep_learnable(cfg, records, f"data set {', '.join(cfg.DATASETS.TRAIN)}")
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            records = filter_images_with_only_crowd_annotations(records)
        return build_detection_train_loader(cfg, dataset=records)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, folder: str = "inference") -> Any:
        """Return the evaluator of `TEST.EVALUATOR`; "auto" takes that of the data set's `evaluator_type`.

        Args:
            cfg: the configuration.
            dataset_name: name of the data set.
            folder: folder in OUTPUT_DIR for what the evaluator writes.

        Raises:
            UserError: the data set has another type, or Detectron2 cannot evaluate it in this way.
        """
        kind = cfg.TEST.EVALUATOR
        if kind == "auto":
            found = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
            if found not in _EVALUATORS:
                raise UserError(
                    f"DATASETS.TEST: there is no evaluator for {dataset_name!r}, whose metric is {found!r}; "
                    "set TEST.EVALUATOR to coco or voc"
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
                f"DATASETS.TEST: Detectron2's VOC metric evaluates whole splits, found {dataset_name!r}; "
                "set TEST.EVALUATOR coco, or add --engine native"
            )
        return PascalVOCDetectionEvaluator(dataset_name)

    @classmethod
    def test_with_augmentation(cls, cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
        """Evaluate a model with the test-time augmentation of `TEST.AUG`; the keys of the results end in `_TTA`."""
        evaluators = [cls.build_evaluator(cfg, name, "inference_TTA") for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return {f"{key}_TTA": value for key, value in results.items()}
