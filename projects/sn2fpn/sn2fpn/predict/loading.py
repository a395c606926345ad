"""Build a predictor from a configuration file and a checkpoint, with the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn

from ..config import get_cfg, instantiate
from ..config.ranges import check_ranges
from ..data import known_categories, register_custom
from ..data.augmentation import ResizeShortestEdge, build_augmentations
from ..data.categories import Category
from ..engine.options import YAML_KEYS, read_options
from ..errors import UserError, argument_names
from ..modeling import MultiViewDetector, build_multi_view
from ..modeling.build import build_model
from ..shipped import find_file
from ..trust import check_own
from .predictor import LONGEST_VIEW, Predictor, load_whole

__all__ = ["load_predictor", "evaluation_resize"]


def load_predictor(
    config_file: str, weights: str, opts: Sequence[str], trust: bool = False, device: str = ""
) -> tuple[Predictor, list[Category]]:
    """Build the model of a YAML or Python configuration and load its weights.

    Args:
        config_file: the configuration, whose name ends with .py if it is a Python one.
        weights: the checkpoint; "" means the one that the configuration names.
        opts: changes of the configuration, as KEY VALUE ... for YAML or key=value ... for Python.
        trust: whether a Python configuration may be run although somebody else may have written it, see `trust.py`.
        device: the device of the model; "" means the one that the configuration names.

    Returns:
        The predictor and its classes, ordered by contiguous id.

    Raises:
        UserError: the configuration is broken or is somebody else's code, a change does not fit it, or weights are
            missing or belong to another model, or the model reads pictures of other than three channels.
    """
    if config_file.endswith(".py") and not trust:
        check_own([find_file(config_file, "configs")], f"--config-file {config_file} is a program that would be run")
    load = _from_python if config_file.endswith(".py") else _from_yaml
    loaded = load(config_file, weights, opts, device)
    if (channels := len(loaded.model.pixel_mean)) != 3:
        raise UserError(
            f"--config-file {config_file}: expected a model of pictures with 3 channels, as files have, found "
            f"{channels} in MODEL.PIXEL_MEAN; give its pictures as arrays to sn2fpn.predict.Predictor"
        )
    register_custom(loaded.custom)
    categories = known_categories(loaded.sets, loaded.model.roi_heads.num_classes, loaded.class_names)
    predictor = Predictor(loaded.model, loaded.resize, categories, loaded.precision, loaded.augmented)
    predictor.trained_names = loaded.class_names
    predictor.longest_view = loaded.longest_view
    return predictor, categories


class _Loaded(NamedTuple):
    """What a configuration says about prediction."""

    model: nn.Module
    resize: ResizeShortestEdge | None
    class_names: list[str]  # of the checkpoint
    custom: Sequence[Any]  # the data sets to register
    sets: list[str]  # names of the data sets that the model was trained and tested on
    precision: torch.dtype | None  # of mixed precision
    augmented: MultiViewDetector | None = None  # the model with test-time augmentation
    longest_view: int = LONGEST_VIEW


def _from_yaml(config_file: str, weights: str, opts: Sequence[str], device: str) -> _Loaded:
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
    check_ranges(cfg)
    _check_given(weights or cfg.MODEL.WEIGHTS, config_file)
    model = build_model(cfg).eval()
    with argument_names({"path": "--weights" if weights else "MODEL.WEIGHTS", "average": "SOLVER.EMA.ENABLED"}):
        names = load_whole(model, weights or cfg.MODEL.WEIGHTS, cfg.SOLVER.EMA.ENABLED, cfg.dump())
    (resize,) = build_augmentations(cfg, is_train=False)
    sets, precision = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN], read_options(cfg, YAML_KEYS).precision
    augmented = build_multi_view(cfg, model) if cfg.TEST.AUG.ENABLED else None
    return _Loaded(model, resize, names, cfg.DATASETS.CUSTOM, sets, precision, augmented, cfg.TEST.AUG.MAX_SIZE)


def _from_python(config_file: str, weights: str, opts: Sequence[str], device: str) -> _Loaded:
    from ..engine.lazy import LazyRecipe

    recipe = LazyRecipe(config_file, opts)
    recipe = recipe.on_device(device) if device else recipe
    options, loaders = recipe.options, recipe.cfg.dataloader
    _check_given(weights or options.weights, config_file)
    model = recipe.build_model().eval()
    with argument_names({"path": "--weights" if weights else options.key("weights"), "average": options.key("ema")}):
        names = load_whole(model, weights or options.weights, options.ema, recipe.dump())
    sets = [(loaders.get(kind) or {}).get("dataset", {}) for kind in ("test", "train")]
    custom = OmegaConf.to_container(loaders.custom) if "custom" in loaders else []
    sets = [name for s in sets for name in _as_list(s.get("names"))]
    return _Loaded(model, evaluation_resize(recipe.cfg), names, custom, sets, options.precision)


def evaluation_resize(cfg: Any) -> ResizeShortestEdge | None:
    """Return the resizing that a Python configuration evaluates with, or None if pictures keep their size.

    Raises:
        UserError: the configuration does something else to pictures.
    """
    mapper = (cfg.dataloader.get("test") or {}).get("mapper", {})
    augmentations = instantiate(mapper.get("augmentations", []))
    if any(not isinstance(a, ResizeShortestEdge) for a in augmentations) or len(augmentations) > 1:
        raise UserError(
            "dataloader.test.mapper.augmentations: expected one ResizeShortestEdge or nothing to predict on single "
            f"pictures, found {[type(a).__name__ for a in augmentations]}"
        )
    return augmentations[0] if augmentations else None


def _as_list(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])


def _check_given(weights: str, config_file: str) -> None:
    if not weights:
        raise UserError(
            f"--weights: expected a checkpoint because {config_file} names none; add --weights path/to/model_final.pth"
        )
