"""The check before a run, which finds mistakes in the configuration before devices, weights and data are used."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import CfgNode
from ..errors import ArgumentError, UserError, argument_names, check_choice
from ..modeling.build import without_values
from .best_model import missing
from .config import validate
from .options import RunOptions, world_size
from .recipe import CfgRecipe, Recipe
from .solver import build_gradient_clipper, build_lr_scheduler, build_optimizer

__all__ = ["check_best_metric", "check_parts", "check_recipe", "check_solver", "checked_recipe"]

_DEVICES = ("cuda", "cpu")


def checked_recipe(cfg: CfgNode, args: Any = None) -> CfgRecipe:
    """Return the recipe of a YAML configuration after all checks that need no data.

    Args:
        cfg: the configuration.
        args: the command line, from `default_argument_parser`; None stands for training in the present processes.

    Raises:
        UserError: see `config.validate` and `check_recipe`.
    """
    validate(cfg, args)
    recipe = CfgRecipe(cfg, world_size(args))
    check_recipe(recipe, args is not None and args.eval_only)
    return recipe


def check_recipe(recipe: Recipe, eval_only: bool = False) -> None:
    """Check all that a recipe tells without its data, and build its model without memory for the weights.

    Random states stay as they are, and nothing is logged.

    Args:
        recipe: the recipe.
        eval_only: whether nothing is trained, so that the optimizer, its schedule and the choice of the best model are
            not looked at.

    Raises:
        UserError: the run would fail later for the same reason.
    """
    _check_device(recipe)
    recipe.check_settings(eval_only)
    if not eval_only:
        check_best_metric(recipe.options, recipe.metrics(), bool(recipe.test_sets()))
    check_parts(recipe, eval_only)


def check_parts(recipe: Recipe, eval_only: bool = False) -> None:
    """Build the model of a recipe, its optimizer, its schedule and its clipping, and drop them.

    They are built on torch's "meta" device, where tensors have no memory. A module of a user's own may need numbers
    that "meta" does not have. What fails there for another reason than a refused argument is therefore built on the
    CPU, and what fails there, too, but not with a message for the user, is left to the run itself.

    Raises:
        UserError: a part refuses its arguments.
    """
    try:
        _build_parts(recipe, "meta", eval_only)
    except Exception as e:
        if isinstance(e, ArgumentError) or (isinstance(e, UserError) and e.__cause__ is None):
            raise
    else:
        return
    try:
        _build_parts(recipe, "cpu", eval_only)
    except UserError:
        raise
    except Exception:  # the run shows it with its traceback
        logging.getLogger(__name__).debug("The parts cannot be built in advance", exc_info=True)


def check_solver(cfg: Any) -> None:
    """Build the optimizer, the schedule and the clipping of a YAML configuration for a model of one layer.

    Raises:
        UserError: a key of SOLVER has a wrong value.
    """
    with _leave_no_trace():
        build_lr_scheduler(cfg, build_optimizer(cfg, nn.Linear(1, 1, device="meta")))
        build_gradient_clipper(cfg)


def _build_parts(recipe: Recipe, device: str, eval_only: bool) -> None:
    recipe = recipe.on_device(device)
    with _leave_no_trace(), without_values() if device == "meta" else torch.device(device):
        model = recipe.build_model()
        if not eval_only:
            recipe.build_scheduler(recipe.build_optimizer(model))
            recipe.build_gradient_clipper()


@contextmanager
def _leave_no_trace() -> Iterator[None]:
    """Keep the random states of torch, NumPy and Python, and let nothing be logged, since the run logs it again."""
    states, level = (random.getstate(), np.random.get_state()), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        random.setstate(states[0])
        np.random.set_state(states[1])


def _check_device(recipe: Recipe) -> None:
    """Check that the device has a name that torch knows; whether it is there is looked at later."""
    try:
        torch.device(recipe.options.device)
    except RuntimeError:
        check_choice(recipe.options.key("device"), recipe.options.device, _DEVICES)


def check_best_metric(o: RunOptions, given: Iterable[str] | None, has_test: bool) -> None:
    """Check that evaluations can give the metric of `best_metric`, and do so where a run is stopped by it.

    Args:
        o: the options of the run.
        given: the names of the metrics of its evaluations, or None if they are not known.
        has_test: whether there are evaluations.

    Raises:
        UserError: no run gives a metric of this name, or this one does not and waits for it.
    """
    if not o.best_metric or given is None or not has_test:
        return
    with argument_names({"metric": o.key("best_metric")}):
        lacking = missing(o.best_metric, given)
    if lacking and o.patience:
        raise UserError(f"{o.key('patience')} needs {o.key('best_metric')} {o.best_metric}: {lacking}")
