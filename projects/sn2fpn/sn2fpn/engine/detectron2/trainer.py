"""Detectron2's trainer, with this project's evaluators, checks of the data and clipping of gradients."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.engine import DefaultTrainer, hooks
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.solver import LRMultiplier, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ...data.files import check_files_exist
from ...data.selection import keep_learnable, require_annotations
from ...data.workers import GuardedLoader
from ...distributed import average_statistics
from ...errors import UserError
from ...program import Interrupted
from ..interrupts import Interrupts, Stopped
from ..options import YAML_KEYS, read_options
from ..results_file import Clock
from ..solver import build_multiplier
from .checkpoints import Checkpointer, records
from .evaluators import build_evaluator
from .mapper import Mapper
from .reporting import Evaluations, RemoteWriter

__all__ = ["Trainer"]


class Trainer(DefaultTrainer):
    """Detectron2's trainer for a configuration that has the study's keys.

    Signals and dead worker processes end it as they end the native trainer, after a checkpoint was saved.
    """

    _interrupts: ClassVar[Interrupts | None] = None  # of the training in progress, for the loaders of its evaluations

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Return Detectron2's hooks, and one that averages statistics before a checkpoint and an evaluation use them.

        Each process has statistics of its own otherwise, and only those of the first one are saved. Checkpoints are
        written by this project's class, and the newest ones are kept, and the best one by TEST.BEST_METRIC.
        """
        clock = Clock()
        # What explains why the states of the trainer do not fit comes first.
        parts = {**records(self.cfg), "trainer": weakref.proxy(self), "clock": clock}
        self.checkpointer = Checkpointer(self.checkpointer.model, self.cfg.OUTPUT_DIR, **parts)
        built = super().build_hooks()
        for hook in built:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = self.cfg.SOLVER.CHECKPOINTS_TO_KEEP or None
        readers = (hooks.PeriodicCheckpointer, hooks.EvalHook)
        first = next(i for i, hook in enumerate(built) if isinstance(hook, readers))
        built.insert(first, hooks.CallbackHook(after_step=lambda trainer: average_statistics(trainer.model)))
        if comm.is_main_process():
            evaluation = next(i for i, hook in enumerate(built) if isinstance(hook, hooks.EvalHook))
            images = getattr(self._trainer.data_loader, "num_images", 0)
            built.insert(evaluation + 1, Evaluations(self.cfg, self.checkpointer, clock, images))
        return built

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of a checkpoint. The scaler of gradients starts anew where the run had none before."""
        scaler = getattr(self._trainer, "grad_scaler", None)
        if scaler is not None:
            inner = {"grad_scaler": scaler.state_dict(), **state_dict["_trainer"]}
            state_dict = {**state_dict, "_trainer": inner}
        super().load_state_dict(state_dict)

    def build_writers(self) -> list[EventWriter]:
        """Return Detectron2's writers and those of the services that LOGGING names."""
        services = read_options(self.cfg, YAML_KEYS).services
        return [*super().build_writers(), *(RemoteWriter(service, self) for service in services)]

    def test_augmented_at_the_end(self) -> dict[str, Any]:
        """Evaluate the model with test-time augmentation, and add the results to the last row of `results.csv`."""
        results = self.test_with_augmentation(self.cfg, self.model)
        for hook in self._hooks:
            if isinstance(hook, Evaluations):
                hook.add(self.max_iter - 1, results)
        return results

    def train(self) -> Any:
        """Train as Detectron2 does.

        Raises:
            UserError: a worker process has died or an image cannot be read, after a checkpoint was saved.
            Interrupted: a signal has stopped the run, after a checkpoint was saved.
        """
        Trainer._interrupts = interrupts = Interrupts()
        self._trainer.data_loader = interrupts.batches(self._trainer.data_loader)
        try:
            with interrupts:
                return super().train()
        except Stopped as stopped:
            raise self._save_and_explain(stopped) from None
        finally:
            Trainer._interrupts = None

    def after_step(self) -> None:
        """Call the hooks; an evaluation that was told to stop ends, and the next step does not begin."""
        try:
            super().after_step()
        except Stopped:
            self.model.train()

    def _save_and_explain(self, stopped: Stopped) -> Interrupted | UserError:
        if self.iter >= self.max_iter:
            what = "model_final.pth is complete. Evaluate it with python train_net.py --eval-only"
            return stopped.reason("during the last evaluation", what)
        done = self.iter - 1  # the step `self.iter` has not begun
        if done < self.start_iter:
            return stopped.reason("before the first step", "there was nothing to save")
        self.iter = self._trainer.iter = done
        self.checkpointer.save(f"model_{done:07d}", iteration=done)
        comm.synchronize()
        what = f"model_{done:07d}.pth was saved. Add --resume to the same command to continue"
        return stopped.reason(f"after iteration {done + 1}", what)

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

        def clip_all(*_: Any) -> None:
            torch.nn.utils.clip_grad_norm_(params, clip.CLIP_VALUE, clip.NORM_TYPE)

        optimizer.register_step_pre_hook(clip_all)
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        """Return Detectron2's scheduler with the native engine's schedule, which also has a value where the run ends.

        Detectron2's own schedules have the same values, but some of them fail there.
        """
        return LRMultiplier(optimizer, build_multiplier(cfg), cfg.SOLVER.MAX_ITER)

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
        loader = build_detection_train_loader(cfg, dataset=records, mapper=Mapper(cfg, True))
        if isinstance(loader, AspectRatioGroupedDataset):
            loader.dataset = GuardedLoader(loader.dataset)
        else:
            loader = GuardedLoader(loader)
        loader.num_images = len(records)
        return loader

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return Detectron2's loader. During a training, it ends early when the training has to stop."""
        loader = GuardedLoader(build_detection_test_loader(cfg, dataset_name, mapper=Mapper(cfg, False)))
        return cls._interrupts.evaluating(loader) if cls._interrupts else loader

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, folder: str = "inference") -> Any:
        """Return the evaluator of a data set, which writes into a folder in OUTPUT_DIR; see `evaluators`."""
        return build_evaluator(cfg, dataset_name, Path(cfg.OUTPUT_DIR, folder, dataset_name))

    @classmethod
    def test_with_augmentation(cls, cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
        """Evaluate a model with the test-time augmentation of `TEST.AUG`; the keys of the results end in `_TTA`."""
        evaluators = [cls.build_evaluator(cfg, name, "inference_TTA") for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return {f"{key}_TTA": value for key, value in results.items()}
