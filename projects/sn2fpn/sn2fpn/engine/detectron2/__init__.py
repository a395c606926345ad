"""The Detectron2 engine: Detectron2's trainer on this project's configuration, pyramids and data sets."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_setup, hooks
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ...checkpoint import load_file
from ...checkpoint.matching import check_finite
from ...data import DatasetCatalog as OurCatalog
from ...data import check_classes, class_names
from ...errors import UserError, argument_names, did_you_mean
from ...integrations.detectron2 import read_config, register_backbones, register_custom, share_dataset
from ...modeling.build import check_served as check_native
from ..config import remarks, validate
from ..folder import run_folder
from ..options import YAML_KEYS, read_options, world_size
from ..preflight import check_best_metric, check_parts, check_solver
from ..recipe import CfgRecipe
from ..record import check_class_order, check_same_model
from .checkpoints import Checkpointer, choose_last
from .checks import check_served, given_metrics
from .trainer import Trainer

__all__ = ["Trainer", "device", "load_config", "run"]

logger = logging.getLogger(__name__)


def load_config(args: Any) -> CfgNode:
    """Return Detectron2's configuration of a command line, with the study's keys.

    Raises:
        UserError: an unknown key, a value of the wrong type, or a value that Detectron2 cannot serve.
    """
    register_backbones()  # again, since a pyramid may have been registered after the first time
    cfg = read_config(args.config_file, args.opts)
    validate(cfg, args)
    check_solver(cfg)
    _check_our_parts(cfg, args)
    check_served(cfg, args)
    if not args.eval_only:
        check_best_metric(read_options(cfg, YAML_KEYS), given_metrics(cfg), bool(cfg.DATASETS.TEST))
    return CfgNode(cfg)


def _check_our_parts(cfg: Any, args: Any) -> None:
    """Check the arguments of a model that the native engine has, too, since Detectron2's classes do not check them."""
    try:
        check_native(cfg)
    except UserError:
        return
    without_pyramid = cfg.MODEL.BACKBONE.NAME == "build_resnet_backbone"
    if not without_pyramid and not any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE):
        check_parts(CfgRecipe(cfg, world_size(args)), args.eval_only)


def device(cfg: CfgNode) -> str:
    """Return the name of the device of a configuration."""
    return cfg.MODEL.DEVICE


def run(cfg: CfgNode, args: Any, engine: Any = "") -> dict[str, Any] | None:
    """Train or, with `--eval-only`, evaluate a model, as Detectron2's own train_net.py does.

    Args:
        cfg: the configuration, from `load_config`.
        args: the command line, from `default_argument_parser`.
        engine: the first line of the log.

    Returns:
        The results of the evaluation on the main process, where Detectron2 gives them.
    """
    with run_folder(read_options(cfg, YAML_KEYS), args) as notes:
        return _run(cfg, args, engine, notes)


def _run(cfg: CfgNode, args: Any, engine: Any, notes: list[str]) -> dict[str, Any] | None:
    last = _set_up(cfg, args, engine, notes)
    _register_datasets(cfg)
    if args.eval_only:
        return _evaluate(cfg, last, complete=not args.allow_partial)
    with _refusals("build this configuration"):
        trainer = Trainer(cfg)
    with _refusals("load this checkpoint into this configuration"):
        trainer.resume_or_load(resume=args.resume)
    if cfg.TEST.AUG.ENABLED:
        trainer.register_hooks([hooks.EvalHook(0, trainer.test_augmented_at_the_end)])
    try:
        return trainer.train()
    except FloatingPointError as e:
        raise UserError(
            f"the training diverged: {e}. Common remedies are a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS or "
            "SOLVER.CLIP_GRADIENTS.ENABLED True"
        ) from e


def _set_up(cfg: CfgNode, args: Any, engine: Any, notes: list[str]) -> str:
    """Prepare a run, and return the checkpoint that a resumed one continues from; "" stands for none.

    Only a run that does not continue reads `MODEL.WEIGHTS`, so that the file may be gone for the others.
    """
    if torch.distributed.is_initialized():
        comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", args.num_gpus)))
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="sn2fpn")
    last = choose_last(cfg.OUTPUT_DIR, train=not args.eval_only) if args.resume else ""
    if cfg.MODEL.WEIGHTS and not last:
        with argument_names({"path": "MODEL.WEIGHTS", "checkpoint": "MODEL.WEIGHTS"}):
            checkpoint = load_file(cfg.MODEL.WEIGHTS)  # refuses pickles whose code Detectron2 would run
            check_finite(checkpoint.model, checkpoint.path)
    logger.info("%s", engine)
    for line in (*notes, *remarks(cfg)):
        logger.warning("%s", line)
    cfg.freeze()
    default_setup(_away_from_training(cfg) if args.eval_only else cfg, args)
    if cfg.MODEL.WEIGHTS and not last:  # Detectron2 reads the file that was checked, and does not fetch another
        cfg.defrost()
        cfg.MODEL.WEIGHTS = str(checkpoint.path)
        cfg.freeze()
    return last


def _away_from_training(cfg: CfgNode) -> CfgNode:
    """Return a configuration for an evaluation whose record does not replace that of a training in the same folder."""
    if not (Path(cfg.OUTPUT_DIR) / "config.yaml").exists():
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "inference")
    cfg.freeze()
    return cfg


@contextmanager
def _refusals(task: str) -> Iterator[None]:
    """Turn what Detectron2 raises because it cannot do a task into one message."""
    try:
        yield
    except UserError:
        raise
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        raise UserError(
            f"Detectron2 cannot {task}: {type(e).__name__} {e} "
            f"({Path(at.filename).name}, line {at.lineno}; --debug shows more)"
        ) from e


def _evaluate(cfg: CfgNode, last: str, complete: bool) -> dict[str, Any]:
    """Evaluate the checkpoint `last` of the run or, without one, `MODEL.WEIGHTS`."""
    file, source = (last, last) if last else (cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS")
    with _refusals("build this configuration"):
        model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, complete=complete)
    with argument_names({"path": source}):
        rest = checkpointer.load(file)
        if complete:
            advice = ", or add --allow-partial"
            check_same_model(rest.get("config"), cfg.dump(), file, advice)
            for name in cfg.DATASETS.TEST:
                theirs = MetadataCatalog.get(name).get("thing_classes", [])
                classes = class_names(name) if name in OurCatalog else theirs
                check_class_order(rest.get("class_names"), classes, file, f"data set {name!r}", advice)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_augmentation(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _register_datasets(cfg: CfgNode) -> None:
    """Register every data set of the configuration with Detectron2, and check that its classes are the model's."""
    register_custom(cfg.DATASETS.CUSTOM)
    for key, names in (("DATASETS.TRAIN", cfg.DATASETS.TRAIN), ("DATASETS.TEST", cfg.DATASETS.TEST)):
        for name in names:
            if name not in DatasetCatalog and name not in OurCatalog:
                raise UserError(f"{key}: unknown data set {name!r}{did_you_mean(name, [*DatasetCatalog, *OurCatalog])}")
            share_dataset(name)
    ours = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in OurCatalog]
    if ours and cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        check_classes(cfg, ours)
