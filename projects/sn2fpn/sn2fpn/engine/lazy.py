"""Runs of Python configurations (LazyConfig): the nodes of the configuration build the parts."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config import LazyConfig, instantiate
from ..config.calls import TARGET, dotted_name, full_key, is_list, omegaconf_errors, target_of
from ..config.printing import to_yaml
from ..config.ranges import check_ranges
from ..data import (
    SAMPLERS,
    DatasetMapper,
    check_num_classes,
    check_registered,
    class_histogram,
    class_names,
    get_dataset_dicts,
    make_train_loader,
    register_custom,
)
from ..errors import UserError, argument_names, check_choice, did_you_mean
from ..evaluation import TASKS, COCOEvaluator, PascalVOCEvaluator
from ..modeling import loss_names
from ..modeling.backbone import own_random_stream
from ..modeling.build import check_device
from ..signatures import keyword_parameters
from .lazy_checks import COUNTERPARTS, check_ddp, check_evaluated, check_nodes, check_targets, misspelt
from .options import LAZY_KEYS, LAZY_RANGES, check_options, read_options
from .recipe import Recipe
from .solver import GradientClipper, LRMultiplier, gradient_clipper
from .testing import TestSet, metric_names

__all__ = ["LazyRecipe", "load_recipe", "set_names"]

logger = logging.getLogger(__name__)


def load_recipe(args: Any) -> LazyRecipe:
    """Return the recipe of a command line: the file of `--config-file`, changed by `key=value` pairs.

    Raises:
        UserError: the file does not load, a change does not fit it, or values contradict each other.
    """
    with omegaconf_errors(args.config_file):
        recipe = LazyRecipe(args.config_file, args.opts)
        model, train = recipe.cfg.model, recipe.cfg.dataloader.get("train")
        name = (dotted_name(target_of(model)) if TARGET in model else None) or ""
        if name.startswith("detectron2."):
            raise UserError(
                f"{args.config_file}: its model is Detectron2's own ({name}), which only Detectron2 can train: "
                "use its tools/lazyconfig_train_net.py"
            )
        if args.eval_only:
            check_evaluated(recipe.cfg.dataloader)
        has_train = train is not None and set_names(train) != []
        check_options(recipe.options, args, has_train=has_train, has_test=bool(recipe.test_sets()))
    return recipe


class LazyRecipe(Recipe):
    """The parts that the nodes of a Python configuration describe, in the layout of Detectron2's configurations.

    These are `model`; `dataloader.train`, `.test`, `.evaluator` and, optionally, `.custom` (data sets as in
    `DATASETS.CUSTOM`); `optimizer`, whose `params.model` is set; `lr_multiplier`, a function of the progress from 0 to
    1; and `train`, the options of the run.

    Args:
        filename: path of the configuration.
        overrides: `key=value` changes.

    Raises:
        UserError: the file does not load or lacks a part, or a change does not fit it.
    """

    def __init__(self, filename: str, overrides: Sequence[str] = ()) -> None:
        self._made_of = filename, list(overrides)
        self.cfg = LazyConfig.apply_overrides(LazyConfig.load(filename), overrides, COUNTERPARTS)
        for part in ("model", "dataloader", "optimizer", "lr_multiplier", "train"):
            if part in self.cfg and not isinstance(self.cfg.get(part), DictConfig):
                raise UserError(f"{filename}: {part}: expected a node with arguments, found {self.cfg.get(part)!r}")
            if part not in self.cfg:
                raise UserError(f"{filename}: has no {part!r} to train with{did_you_mean(part, map(str, self.cfg))}")
        self.options = read_options(self.cfg, LAZY_KEYS)
        with omegaconf_errors(filename):
            if OmegaConf.select(self.cfg, LAZY_KEYS["images_per_batch"]) is None:
                self.options = dataclasses.replace(self.options, images_per_batch=0)
            check_ranges(self.cfg, LAZY_RANGES)
        out = os.path.expanduser(self.options.output_dir)  # noqa: PTH111 - which keeps "./", and "~nobody" as it is
        if out != self.options.output_dir:
            self.cfg.train.output_dir = out
            self.options = dataclasses.replace(self.options, output_dir=out)

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes load the file themselves, since what it defines cannot always be pickled."""
        return type(self), self._made_of

    def announce(self) -> None:
        for key, near in misspelt(self.cfg.train, "train"):
            logger.warning("The configuration has %s, which the native engine does not read%s", key, near)

    def check_settings(self, eval_only: bool) -> None:
        loader = self.cfg.dataloader
        with omegaconf_errors("config"):
            check_nodes(self.cfg)
            check_ddp(self.options)
            if self.options.val_loss and not eval_only:
                check_targets(loader.test, self.options.key("val_loss"))
        self._register_custom()
        for key, name in self._data_sets(eval_only):
            check_registered(name, key)
        for node in filter(None, (loader.get("train"), loader.get("test"))):
            if isinstance(node.get("mapper"), DictConfig) and target_of(node.mapper) is DatasetMapper:
                instantiate(node.mapper)
            if "sampler" in node and target_of(node) is make_train_loader:
                check_choice(full_key(node, "sampler"), node.sampler, SAMPLERS)

    def metrics(self) -> list[str] | None:
        sets, heads = self.test_sets(), self.cfg.model.get("roi_heads")
        kind = target_of(self.cfg.dataloader.evaluator) if sets else None
        if kind not in (COCOEvaluator, PascalVOCEvaluator) or not isinstance(heads, DictConfig):
            return None
        masks = heads.get("mask_head") is not None
        tasks = TASKS if masks and kind is COCOEvaluator else TASKS[:1]
        scores = {test_set.name: [f"{task}/{name}" for task in tasks for name in kind.SCORES] for test_set in sets}
        losses = loss_names(masks, len(heads.get("box_heads", ())))
        return metric_names(scores, losses if self.options.val_loss else ())

    def on_device(self, device: str) -> LazyRecipe:
        recipe = object.__new__(type(self))  # `copy.copy` would load the file again
        vars(recipe).update(vars(self), cfg=self._changed({"train.device": device}))
        recipe.options = dataclasses.replace(self.options, device=device)
        return recipe

    def check_data(self, eval_only: bool) -> None:
        self._register_custom()
        names = [name for key, name in self._data_sets(eval_only) if class_names(name, key)]
        heads = self.cfg.model.get("roi_heads", {})
        if names and "num_classes" in heads:
            check_num_classes(heads.num_classes, names, "model.roi_heads.num_classes")

    def class_names(self) -> list[str]:
        names = set_names(self.cfg.dataloader.train) if self.cfg.dataloader.get("train") is not None else None
        return class_names(names[0]) if names else []

    def build_model(self) -> nn.Module:
        with argument_names({"device": self.options.key("device")}):
            device = check_device(self.options.device)
        cfg = copy.deepcopy(self.cfg)
        for key in ("model.backbone.bottom_up", "model.backbone"):  # fresh weights as `build_backbone` draws them
            node = OmegaConf.select(cfg, key)
            if isinstance(node, DictConfig) and TARGET in node:
                with own_random_stream():
                    _replace(node, instantiate(node))
        return instantiate(cfg.model).to(device)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return instantiate(self._changed({"optimizer.params.model": model}).optimizer)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        return LRMultiplier(optimizer, instantiate(self.cfg.lr_multiplier), self.options.max_iter)

    def build_gradient_clipper(self) -> GradientClipper | None:
        clip = dict(self.cfg.train.get("clip_gradients") or {})
        with argument_names("train.clip_gradients.{}".format):
            return gradient_clipper(**clip) if clip.pop("enabled", False) else None

    def build_train_loader(self, start_iter: int, seed: int) -> Iterable[list[dict[str, Any]]]:
        node = self.cfg.dataloader.train
        takes = keyword_parameters(target_of(node)) if TARGET in node else {}
        given = {"start_iter": start_iter, "seed": seed}
        node = self._changed({f"dataloader.train.{k}": v for k, v in given.items() if k in takes}).dataloader.train
        if names := set_names(node):
            records = instantiate(node.dataset)
            logger.info("Training data %s:\n%s", ", ".join(names), class_histogram(records, class_names(names[0])))
            _replace(node.dataset, records)
        return instantiate(node)

    def test_sets(self) -> list[TestSet]:
        loader = self.cfg.dataloader
        if loader.get("test") is None or loader.get("evaluator") is None:
            return []
        names = set_names(loader.test)
        changes = {"test": {}} if names is None else {n: {"dataloader.test.dataset.names": n} for n in names}
        return [TestSet(n, partial(self._test_loader, c), partial(self._evaluator, c)) for n, c in changes.items()]

    def draw_predictions(self, model: nn.Module, path: Path) -> Path | None:
        from ..evaluation.predictions import draw_set

        names = set_names(self.cfg.dataloader.test) if self.test_sets() else None
        if not names or "mapper" not in self.cfg.dataloader.test:
            return None
        limit = getattr(getattr(model, "roi_heads", None), "max_detections", -1)
        return draw_set(names[0], instantiate(self.cfg.dataloader.test.mapper), model, path, limit=limit)

    def dump(self) -> str:
        return to_yaml(self.cfg)

    def _register_custom(self) -> None:
        custom = self.cfg.dataloader.get("custom")
        register_custom(OmegaConf.to_container(custom) if custom is not None else (), "dataloader.custom")

    def _data_sets(self, eval_only: bool) -> list[tuple[str, str]]:
        """Return the keys that name data sets which the run uses, each with one name."""
        loader = self.cfg.dataloader
        keys = ([] if eval_only else ["train"]) + (["test"] if self.test_sets() else [])
        return [(f"dataloader.{key}.dataset.names", name) for key in keys for name in set_names(loader[key]) or ()]

    def _test_loader(self, changes: Mapping[str, Any], with_targets: bool = False) -> Iterable[list[dict[str, Any]]]:
        targets = {"dataloader.test.mapper.with_targets": True} if with_targets else {}
        return instantiate(self._changed({**changes, **targets}).dataloader.test)

    def _evaluator(self, changes: Mapping[str, Any], folder: Path) -> Any:
        node = self._changed(changes).dataloader.evaluator
        if node.get("output_dir") is None and "output_dir" in keyword_parameters(target_of(node)):
            node.output_dir = str(folder)
        return instantiate(node)

    def _changed(self, changes: Mapping[str, Any]) -> DictConfig:
        """Return a copy of the configuration in which some keys have other values."""
        cfg = copy.deepcopy(self.cfg)
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value, merge=False)
        return cfg


def _replace(node: DictConfig, built: Any) -> None:
    """Let a node build `built`; its arguments stay, since other nodes refer to them."""
    node[TARGET] = lambda **_: built


def set_names(loader: DictConfig) -> list[str] | None:
    """Return the data sets that a loader node reads, or None when it reads them in another way than ours."""
    dataset = loader.get("dataset")
    if not isinstance(dataset, DictConfig) or TARGET not in dataset or target_of(dataset) is not get_dataset_dicts:
        return None
    names = dataset.names
    return list(names) if is_list(names) else [names] if names else []
