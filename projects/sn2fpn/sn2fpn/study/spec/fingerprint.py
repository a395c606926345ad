"""What a cell's training starts from, as short hashes: with them, anybody can check that variants compare fairly."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import load_trained
from ...config import CfgNode, get_cfg
from ...data import build_train_loader, register_custom
from ...errors import UserError, argument_names
from ...modeling import build_model
from ...modeling.analysis import PARTS
from ...pyramids import PYRAMIDS
from .keys import flatten

__all__ = ["fingerprint"]

_BATCHES = 2


def fingerprint(cfg: CfgNode) -> dict[str, str]:
    """Return what the native engine's trainer starts from for a configuration and its SEED.

    Returns:
        Hashes of the weights of each part ("trunk", "pyramid", "RPN", …; after MODEL.WEIGHTS is loaded), of the state
        of the random number generator at the first step ("random numbers"), and of the first training batches: their
        image ids ("data order"), and their pixels and targets ("augmentation"). In addition, by its full key, every
        configuration value that is not the default, except for the choice of the pyramid, the pyramid's own keys and
        OUTPUT_DIR.

    Raises:
        UserError: SEED is not set, or the model, the weights or the data cannot be built or read.
    """
    if cfg.SEED < 0:
        raise UserError(f"SEED is {cfg.SEED}, but only a run with a seed has a fingerprint; expected 0 or greater")
    on_cpu = cfg.clone()
    on_cpu.defrost()
    on_cpu.MODEL.DEVICE, on_cpu.DATALOADER.NUM_WORKERS = "cpu", 0
    return _weights(on_cpu) | _batches(on_cpu) | _configuration(cfg)


def _weights(cfg: CfgNode) -> dict[str, str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.SEED)
        model = build_model(cfg)
        random_numbers = _hash([torch.get_rng_state()])
    with argument_names({"path": "MODEL.WEIGHTS"}):
        load_trained(model, cfg.MODEL.WEIGHTS)
    out, state = {}, model.state_dict()
    for part, prefixes in PARTS.items():  # the trunk comes before the pyramid that contains it
        names = [name for name in state if name.startswith(tuple(f"{prefix}." for prefix in prefixes))]
        if names:
            out[part] = _hash(item for name in names for item in (name, state.pop(name)))
    return out | {"random numbers": random_numbers}


def _batches(cfg: CfgNode) -> dict[str, str]:
    register_custom(cfg.DATASETS.CUSTOM)
    inputs = [x for batch in itertools.islice(build_train_loader(cfg), _BATCHES) for x in batch]
    content: list[Any] = []
    for x in inputs:
        target = x["instances"]
        content += [x["image"], target.gt_boxes.tensor, target.gt_classes]
        if target.has("gt_masks"):
            masks = target.gt_masks
            content += [masks.tensor] if hasattr(masks, "tensor") else itertools.chain.from_iterable(masks.polygons)
    return {"data order": _hash(str(x["image_id"]) for x in inputs), "augmentation": _hash(content)}


def _configuration(cfg: CfgNode) -> dict[str, str]:
    own = {f"MODEL.{name.upper()}" for name in PYRAMIDS} - {"MODEL.FPN"}  # all pyramids share FPN's widths and norm
    defaults = flatten(get_cfg())
    return {
        key: str(value)
        for key, value in flatten(cfg).items()
        if value != defaults.get(key)
        and key not in ("MODEL.BACKBONE.NAME", "OUTPUT_DIR")
        and key.rpartition(".")[0] not in own
    }


def _hash(content: Iterable[Any]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of texts, tensors and arrays, including their types and shapes."""
    digest = hashlib.sha256()
    for item in content:
        array = np.asarray(item.detach() if isinstance(item, Tensor) else item)
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()[:16]
