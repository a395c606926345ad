"""Runs of Python configurations (LazyConfig): the nodes of the configuration build the parts."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ..config import LazyConfig, instantiate
from ..config.calls import TARGET, dotted_name, is_list, target_of
from ..config.printing import to_yaml
from ..data import check_num_classes, class_histogram, class_names, get_dataset_dicts, register_custom
from ..errors import UserError, argument_names, did_you_mean
from ..modeling.backbone import own_random_stream
from ..modeling.build import check_device
from ..signatures import keyword_parameters
from .options import LAZY_KEYS, check_options, read_options
from .recipe import Recipe
from .solver import GradientClipper, LRMultiplier, gradient_clipper
from .testing import TestSet

__all__ = ["LazyRecipe", "load_recipe", "set_names"]

logger = logging.getLogger(__name__)

_PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def load_recipe(args: Any) -> LazyRecipe:
    """Return the recipe of a command line: the file of `--config-file`, changed by `key=value` pairs.

    Raises:
        UserError: the file does not load, a change does not fit it, or values contradict each other.
    """
    try:
        recipe = LazyRecipe(args.config_file, args.opts)
        name = dotted_name(target_of(recipe.cfg.model)) if TARGET in recipe.cfg.model else None
        if name and name.startswith("detectron2."):
            raise UserError(
                f"{args.config_file}: its model is Detectron2's own ({name}), which only Detectron2 can train: "
                "use its tools/lazyconfig_train_net.py"
            )
        train = recipe.cfg.dataloader.get("train")
        has_train = train is not None and set_names(train) != []
        check_options(recipe.options, args, has_train=has_train, has_test=bool(recipe.test_sets()))
    except OmegaConfBaseException as e:  # an interpolation names a key that does not exist
        raise UserError(f"{args.config_file}: {str(e).splitlines()[0]}") from e
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
        self.cfg = LazyConfig.apply_overrides(LazyConfig.load(filename), overrides)
        for part in _PARTS:
            if not isinstance(self.cfg.get(part), DictConfig):
                raise UserError(f"{filename}: has no {part!r} to train with{did_you_mean(part, map(str, self.cfg))}")
        self.options = read_options(self.cfg, LAZY_KEYS)

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes load the file themselves, since what it defines cannot always be pickled."""
        return type(self), self._made_of

    def check_data(self, eval_only: bool) -> None:
        loader = self.cfg.dataloader
        register_custom(OmegaConf.to_container(loader.custom) if "custom" in loader else (), "dataloader.custom")
        names: list[str] = []
        for key in ("test",) if eval_only else ("train", "test"):
            if key == "train" or self.test_sets():
                found = set_names(loader[key]) or []
                names += [name for name in found if class_names(name, f"dataloader.{key}.dataset.names")]
        heads = self.cfg.model.get("roi_heads", {})
        if names and "num_classes" in heads:
            check_num_classes(heads.num_classes, names, "model.roi_heads.num_classes")

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
        return instantiate(self._changed("optimizer", {"params.model": model}))

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        return LRMultiplier(optimizer, instantiate(self.cfg.lr_multiplier), self.options.max_iter)

    def build_gradient_clipper(self) -> GradientClipper | None:
        clip = dict(self.cfg.train.get("clip_gradients", {}))
        with argument_names("train.clip_gradients.{}".format):
            return gradient_clipper(**clip) if clip.pop("enabled", False) else None

    def build_train_loader(self, start_iter: int, seed: int) -> Iterable[list[dict[str, Any]]]:
        node = self.cfg.dataloader.train
        takes = keyword_parameters(target_of(node)) if TARGET in node else {}
        given = {"start_iter": start_iter, "seed": seed}
        node = self._changed("dataloader.train", {k: v for k, v in given.items() if k in takes})
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
        changes = {"test": {}} if names is None else {name: {"dataset.names": name} for name in names}
        return [
            TestSet(name, functools.partial(self._test_loader, c), functools.partial(self._evaluator, c))
            for name, c in changes.items()
        ]

    def draw_predictions(self, model: nn.Module, path: Path) -> Path | None:
        from ..evaluation.predictions import draw_set

        names = set_names(self.cfg.dataloader.test) if self.test_sets() else None
        if not names or "mapper" not in self.cfg.dataloader.test:
            return None
        return draw_set(names[0], instantiate(self.cfg.dataloader.test.mapper), model, path)

    def dump(self) -> str:
        return to_yaml(self.cfg)

    def _test_loader(self, changes: dict[str, Any], with_targets: bool = False) -> Iterable[list[dict[str, Any]]]:
        targets = {"mapper.with_targets": True} if with_targets else {}
        return instantiate(self._changed("dataloader.test", changes | targets))

    def _evaluator(self, changes: dict[str, Any], folder: Path) -> Any:
        node = self._changed("dataloader.test", changes)._get_parent().evaluator
        if node.get("output_dir") is None and "output_dir" in keyword_parameters(target_of(node)):
            node.output_dir = str(folder)
        return instantiate(node)

    def _changed(self, key: str, changes: dict[str, Any]) -> DictConfig:
        """Return the node at `key` in a copy of the configuration, in which some keys below it have other values."""
        cfg = copy.deepcopy(self.cfg)
        for changed, value in changes.items():
            OmegaConf.update(cfg, f"{key}.{changed}", value, merge=False)
        return OmegaConf.select(cfg, key)


def _replace(node: DictConfig, built: Any) -> None:
    """Let a node build `built`; its arguments stay, since other nodes refer to them."""
    node[TARGET] = functools.partial(_built, built)


def _built(part: Any, **_: Any) -> Any:
    return part


def set_names(loader: DictConfig) -> list[str] | None:
    """Return the data sets that a loader node reads, or None when it reads them in another way than ours."""
    dataset = loader.get("dataset")
    if not isinstance(dataset, DictConfig) or TARGET not in dataset or target_of(dataset) is not get_dataset_dicts:
        return None
    names = dataset.names
    return list(names) if is_list(names) else [names] if names else []
