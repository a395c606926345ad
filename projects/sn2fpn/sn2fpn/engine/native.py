"""The native engine: it trains or evaluates, in this process, what a configuration describes."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from .. import distributed as comm
from ..checkpoint import MatchReport, load_trained
from ..checkpoint.last import good_checkpoint
from ..data import MetadataCatalog
from ..errors import argument_names
from ..evaluation.analysis import PREDICTIONS, write_analysis
from ..evaluation.detections import DetectionEvaluator
from ..precision import autocast
from ..visualization import plot_curves
from .compiling import compile_backbone
from .folder import run_folder
from .hooks import EMA
from .preflight import check_recipe, checked_recipe
from .recipe import Recipe
from .record import check_class_order, check_same_model
from .setup import default_setup
from .testing import AUGMENTED, evaluate
from .trainer import Trainer

__all__ = ["device", "load_config", "run"]

logger = logging.getLogger(__name__)


def load_config(args: Any) -> Any:
    """Return the configuration of a command line: a CfgNode, or a `LazyRecipe` for a Python file.

    Raises:
        UserError: see `config.load_config`, `lazy.load_recipe` and `preflight.check_recipe`.
    """
    if args.config_file.endswith(".py"):
        from .lazy import load_recipe

        recipe = load_recipe(args)
        check_recipe(recipe, args.eval_only)
        return recipe
    from .config import load_config

    cfg = load_config(args)
    checked_recipe(cfg, args)
    return cfg


def device(cfg: Any) -> str:
    """Return the name of the device of a configuration."""
    return cfg.options.device if isinstance(cfg, Recipe) else cfg.MODEL.DEVICE


def run(cfg: Any, args: Any, engine: Any = "") -> dict[str, Any]:
    """Train or, with `--eval-only`, evaluate a model, and return the results of the evaluation.

    Args:
        cfg: a full configuration, or a recipe.
        args: the command line, from `default_argument_parser`.
        engine: the first line of the log.

    Raises:
        UserError: a mistake, which the check of the configuration finds before anything is made.
    """
    recipe = cfg if isinstance(cfg, Recipe) else checked_recipe(cfg, args)
    with run_folder(recipe.options, args) as notes:
        return _run(recipe, args, engine, notes)


def _run(recipe: Recipe, args: Any, engine: Any, notes: list[str]) -> dict[str, Any]:
    options = recipe.options
    default_setup(options, recipe.dump(), args, engine, notes)
    recipe.announce()
    recipe.check_data(args.eval_only)  # now, since it may take hours until the test set is read
    averaged: AbstractContextManager[None] = nullcontext()
    if args.eval_only:
        model = _load_model(recipe, args)
        results = evaluate(recipe.test_sets(), model, options)
        if (augmented := recipe.with_augmentation(model)) is not None:
            for name, found in evaluate(recipe.test_sets(), augmented, options, suffix=AUGMENTED).items():
                results[name] |= found
    else:
        trainer = Trainer(recipe)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
        model = trainer.model
        averaged = next((hook.swapped_in() for hook in trainer.hooks if isinstance(hook, EMA)), averaged)
    if comm.is_main_process():
        with averaged:  # the pictures show the model that was evaluated
            _draw(recipe, model, results, args.eval_only)
    return results


def _load_model(recipe: Recipe, args: Any) -> nn.Module:
    """Return the model to evaluate; with `--resume`, it is that of the last checkpoint if there is one."""
    options = recipe.options
    model = recipe.build_model()
    compile_backbone(model, options)
    last = comm.call_on_main(lambda: good_checkpoint(options.output_dir)) if args.resume else ""
    file, partial = last or options.weights, getattr(args, "allow_partial", False)
    with argument_names({"path": "--resume" if last else options.key("weights"), "average": options.key("ema")}):
        report = load_trained(model, file, options.ema, complete=not partial)
        if report is not None and not partial:
            _check_trained(report, recipe, file)
    return model


def _check_trained(report: MatchReport, recipe: Recipe, file: str) -> None:
    """Refuse the checkpoint of another model, and one whose classes have other numbers than those of the test data."""
    advice = ", or add --allow-partial"
    check_same_model(report.config, recipe.dump(), file, advice)
    for name in (test_set.name for test_set in recipe.test_sets()):
        classes = MetadataCatalog.get(name).get("thing_classes", [])  # which the check of the data has read
        check_class_order(report.class_names, classes, file, f"data set {name!r}", advice)


def _draw(recipe: Recipe, model: Any, results: dict[str, Any], eval_only: bool) -> None:
    """Draw the pictures of a run: training curves, predictions beside the ground truth, and what is right and wrong.

    Those of an evaluation lie in the folder of its results, so that the pictures of a training stay.
    """
    out = Path(recipe.options.output_dir)
    with autocast(recipe.options.device, recipe.options.precision):
        pictures = [recipe.draw_predictions(model, (out / "inference" if eval_only else out) / "predictions.png")]
    if not eval_only and (out / "metrics.json").is_file():
        pictures.insert(0, plot_curves(out / "metrics.json", out / "curves.png"))
    for test_set in recipe.test_sets():
        folder = out / "inference" / test_set.name
        evaluator = test_set.evaluator(folder)
        if test_set.name in results and isinstance(evaluator, DetectionEvaluator):
            pictures.append(write_analysis(evaluator, folder / PREDICTIONS, folder))
    for picture in filter(None, pictures):
        logger.info("Picture: %s", picture)
