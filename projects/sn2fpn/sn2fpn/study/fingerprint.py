"""What a cell starts from, as short hashes: whether variants are compared on equal terms can then be read off."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import load_trained
from ..config import CfgNode, get_cfg
from ..data import build_train_loader, register_custom
from ..errors import UserError, argument_names
from ..modeling import build_model
from ..modeling.analysis import PARTS
from ..pyramids.registry import PYRAMIDS

__all__ = ["differences", "fingerprint"]

_BATCHES = 2


def fingerprint(cfg: CfgNode) -> dict[str, str]:
    """What the native engine's trainer begins with for a configuration and its SEED.

    Returns:
        Hashes of the weights of each part ("trunk", "pyramid", "RPN", …; after MODEL.WEIGHTS was loaded), of the
        state of the random numbers that the steps draw from ("random numbers"), and of the first training batches:
        image ids ("data order"), and pixels and targets ("augmentation"). And by its full key each value of the
        configuration that is not the default, but for the choice of the pyramid, its own keys and OUTPUT_DIR.

    Raises:
        UserError: SEED is not set, or what the trainer would raise for the model, the weights and the data.
    """
    if cfg.SEED < 0:
        raise UserError(f"SEED is {cfg.SEED}: what a run starts from is only defined for a seed, expected 0 or more")
    on_cpu = cfg.clone()
    on_cpu.defrost()
    on_cpu.MODEL.DEVICE, on_cpu.DATALOADER.NUM_WORKERS = "cpu", 0
    return _weights(on_cpu) | _batches(on_cpu) | _configuration(cfg)


def differences(fingerprints: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What is equal in all variants and what differs, for one seed, as lines to print.

    Args:
        fingerprints: of the cells of a seed, by the variants' names.
    """
    equal, lines = [], []
    sections = get_cfg()
    values_differ = False
    for key in dict.fromkeys(itertools.chain.from_iterable(fingerprints.values())):
        is_value = key.partition(".")[0] in sections
        groups: dict[str, list[str]] = {}
        for variant, values in fingerprints.items():
            groups.setdefault(values.get(key, "default" if is_value else "none"), []).append(variant)
        if len(groups) > 1:
            values_differ |= is_value
            lines.append(
                f"{key} differs: "
                + " | ".join(
                    f"{value} in {', '.join(names)}" if is_value else ", ".join(names)
                    for value, names in groups.items()
                )
            )
        elif not is_value:
            equal.append(key)
    if not values_differ:
        equal.append("configuration but for the pyramid")
    return [f"equal in all {len(fingerprints)} variants: {', '.join(equal) or 'nothing'}", *lines]


def _weights(cfg: CfgNode) -> dict[str, str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.SEED)
        model = build_model(cfg)
        random_numbers = _hash([torch.get_rng_state()])
    with argument_names({"path": "MODEL.WEIGHTS"}):
        load_trained(model, cfg.MODEL.WEIGHTS)
    out, taken = {}, set()
    for part, prefixes in PARTS.items():  # the trunk comes before the pyramid that holds it
        mine = {
            name: value
            for name, value in model.state_dict().items()
            if name.startswith(tuple(f"{p}." for p in prefixes)) and name not in taken
        }
        taken |= mine.keys()
        if mine:
            out[part] = _hash(itertools.chain.from_iterable(mine.items()))
    return out | {"random numbers": random_numbers}


def _batches(cfg: CfgNode) -> dict[str, str]:
    register_custom(cfg.DATASETS.CUSTOM)
    inputs = [x for batch in itertools.islice(build_train_loader(cfg), _BATCHES) for x in batch]
    content: list[Any] = []
    for x in inputs:
        target = x["instances"]
        content += [x["image"], target.gt_boxes.tensor, target.gt_classes]
        if target.has("gt_masks"):
            content += _mask_arrays(target.gt_masks)
    return {"data order": _hash(str(x["image_id"]) for x in inputs), "augmentation": _hash(content)}


def _mask_arrays(masks: Any) -> list[Any]:
    """The bitmaps, or the corners of all polygons."""
    return [masks.tensor] if hasattr(masks, "tensor") else list(itertools.chain.from_iterable(masks.polygons))


def _configuration(cfg: CfgNode) -> dict[str, str]:
    own = {f"MODEL.{name.upper()}" for name in PYRAMIDS} - {"MODEL.FPN"}  # whose widths and norm all share
    defaults = dict(_leaves(get_cfg()))
    return {
        key: str(value)
        for key, value in _leaves(cfg)
        if value != defaults.get(key)
        and key not in ("MODEL.BACKBONE.NAME", "OUTPUT_DIR")
        and key.rpartition(".")[0] not in own
    }


def _leaves(node: CfgNode, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _hash(content: Iterable[Any]) -> str:
    """16 hexadecimal digits of SHA-256 over texts, tensors and arrays, types and shapes included."""
    digest = hashlib.sha256()
    for item in content:
        array = np.asarray(item.detach() if isinstance(item, Tensor) else item)
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()[:16]
