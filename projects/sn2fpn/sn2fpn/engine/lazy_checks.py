"""Checks of a Python configuration (LazyConfig) before anything is made of it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel

from ..config.calls import TARGET, dotted_name, full_key, target_of
from ..errors import ArgumentError, UserError, did_you_mean
from ..signatures import fits, keyword_parameters, type_words
from .options import LAZY_KEYS, LAZY_RANGES, YAML_KEYS, RunOptions

__all__ = ["COUNTERPARTS", "check_ddp", "check_evaluated", "check_nodes", "check_targets", "misspelt"]

COUNTERPARTS = (
    {yaml: LAZY_KEYS[name] for name, yaml in YAML_KEYS.items() if name in LAZY_KEYS}
    | LAZY_RANGES
    | {
        "DATASETS.CUSTOM": "dataloader.custom",
        "INPUT.MAX_SIZE_TEST": "dataloader.test.mapper.augmentations.0.max_size",
        "INPUT.MIN_SIZE_TEST": "dataloader.test.mapper.augmentations.0.short_edges",
        "MODEL.BACKBONE.FREEZE_AT": "model.backbone.bottom_up.freeze_at",
        "MODEL.FPN.OUT_CHANNELS": "model.backbone.out_channels",
        "MODEL.RESNETS.DEPTH": "model.backbone.bottom_up.depth",
        "MODEL.ROI_HEADS.NUM_CLASSES": "model.roi_heads.num_classes",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.roi_heads.score_thresh",
        "MODEL.SNI.ALPHA": "model.backbone.alpha",
        "SOLVER.STEPS": "lr_multiplier.scheduler.steps",
        "TEST.DETECTIONS_PER_IMAGE": "model.roi_heads.max_detections",  # to which that of the evaluator refers
    }
)
"""For the keys of YAML configurations that are changed most often, the keys of Python configurations."""

_OF_DDP = (keyword_parameters(DistributedDataParallel).keys() - {"module", "device_ids"}) | {"fp16_compression"}
"""What `train.ddp` may hold; the last one is Detectron2's."""


def check_nodes(config: Any) -> None:
    """Raise a UserError if the target of a node does not exist, or does not take an argument or the type of its value.

    Of types, only text for a number or a truth value is refused, because other packages may annotate too strictly for
    more. Text such as "False" would count as true.
    """
    for node in _nodes(config):
        _check_arguments(node)


def check_ddp(options: RunOptions) -> None:
    """Raise a UserError if torch's DistributedDataParallel does not take an argument of `train.ddp`."""
    for name in options.ddp:
        if name not in _OF_DDP:
            near = did_you_mean(str(name), _OF_DDP)
            raise UserError(f"{options.key('ddp')}: DistributedDataParallel takes no argument {name!r}{near}")


def check_evaluated(dataloader: DictConfig) -> None:
    """Raise a UserError if one of the nodes that an evaluation needs is missing."""
    for name in ("test", "evaluator"):
        if dataloader.get(name) is None:
            raise UserError(f"dataloader.{name}: an evaluation needs this node, found {dataloader.get(name)}")


def check_targets(loader: DictConfig, key: str) -> None:
    """Raise a UserError if the mapper of a test loader cannot give the ground truth, which validation losses need.

    Args:
        loader: the node of the loader.
        key: the key that asks for validation losses.
    """
    mapper = loader.get("mapper")
    if not isinstance(mapper, DictConfig) or "with_targets" not in keyword_parameters(target_of(mapper)):
        raise UserError(
            f"{key}: expected dataloader.test.mapper to take the argument with_targets, as DatasetMapper does, so that "
            f"its images come with their ground truth; found {mapper}. Set {key} to false, or change the mapper"
        )


def misspelt(node: DictConfig, place: str) -> Iterator[tuple[str, str]]:
    """Yield the keys below a node that are close to a key of `RunOptions`, but are none, each with that key.

    Other unknown keys are a user's own, which the configuration may refer to.
    """
    known = {key.removeprefix(f"{place}.").split(".")[0] for key in LAZY_KEYS.values() if key.startswith(f"{place}.")}
    for name in map(str, node):
        if name in known and isinstance(node[name], DictConfig) and f"{place}.{name}" not in LAZY_KEYS.values():
            yield from misspelt(node[name], f"{place}.{name}")
        elif name not in known and "did you mean" in (near := did_you_mean(name, known)):
            yield f"{place}.{name}", near


def _nodes(config: Any) -> Iterator[DictConfig]:
    """Yield the nodes with a target in a configuration; references to other nodes are not followed."""
    if not isinstance(config, DictConfig | ListConfig) or config._is_none() or config._is_missing():
        return
    if isinstance(config, DictConfig) and TARGET in config:
        yield config
    for key in config if isinstance(config, DictConfig) else range(len(config)):
        if not OmegaConf.is_interpolation(config, key):
            yield from _nodes(config[key])


def _check_arguments(node: DictConfig) -> None:
    """Check a single node; see `check_nodes`."""
    target = target_of(node)
    takes = keyword_parameters(target)
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some that are written in C have none
        return
    for name in node:
        if name == TARGET:
            continue
        try:
            signature.bind_partial(**{str(name): None})
        except TypeError:
            near = did_you_mean(str(name), takes)
            raise UserError(f"{full_key(node)} ({dotted_name(target)}): takes no argument {name!r}{near}") from None
        hint = takes[name].annotation if name in takes else None
        if isinstance(node[name], str) and _is_scalar(hint) and not fits(node[name], hint):
            raise ArgumentError(full_key(node, name), f"expected {type_words(hint)}, found the text {node[name]!r}")


def _is_scalar(annotation: Any) -> bool:
    """Return whether an annotation allows numbers, truth values, text and None only."""
    return all(a in (bool, int, float, str, type(None)) for a in typing.get_args(annotation) or [annotation])
