"""What a cell's training starts from, as short hashes, and whether variants were compared on equal terms."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import load_trained
from ...config import CfgNode, get_cfg
from ...data import DatasetCatalog, build_train_loader, dataset_fingerprint, register_custom
from ...errors import UserError, argument_names
from ...modeling import build_model
from ...modeling.analysis import PARTS
from ...pyramids import PYRAMIDS
from .syntax import flatten
from .variants import Cell

__all__ = ["data_fingerprint", "differences", "differences_by_seed", "fingerprint", "records_fingerprint"]

_BATCHES = 2
_CODE = "code of "  # a file of IMPORTS
_MOST = 6  # of more variants, not all are named


def fingerprint(cfg: CfgNode) -> dict[str, str]:
    """Return what the native engine's trainer starts from for a configuration and its SEED.

    Returns:
        Hashes of the weights of each part ("trunk", "pyramid", "RPN", …; after MODEL.WEIGHTS is loaded), of the state
        of the random number generator at the first step ("random numbers"), and of the first training batches: their
        image ids ("data order"), and their pixels and targets ("augmentation"), and of the images and boxes of the data
        sets ("training data", "test data"; see `dataset_fingerprint`). In addition, by its full key, every
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
    return _weights(on_cpu) | data_fingerprint(on_cpu) | _batches(on_cpu) | _configuration(cfg)


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


def data_fingerprint(cfg: CfgNode) -> dict[str, str]:
    """Return the hashes of the images and boxes of the data sets ("training data", "test data")."""
    register_custom(cfg.DATASETS.CUSTOM)
    roles = {"training data": ("DATASETS.TRAIN", cfg.DATASETS.TRAIN), "test data": ("DATASETS.TEST", cfg.DATASETS.TEST)}
    return {
        role: records_fingerprint(DatasetCatalog.get(name, key) for name in names)
        for role, (key, names) in roles.items()
    }


def records_fingerprint(sets: Iterable[Sequence[dict[str, Any]]]) -> str:
    """Return the hash of the images and boxes of data sets; see `data_fingerprint`."""
    return _hash(dataset_fingerprint(records) for records in sets)


def _batches(cfg: CfgNode) -> dict[str, str]:
    inputs, content = [x for batch in itertools.islice(build_train_loader(cfg), _BATCHES) for x in batch], []
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


def differences(fingerprints: Mapping[str, Mapping[str, str]], variants: int | None = None) -> list[str]:
    """Return lines that say what is equal in all variants of a seed, and for everything else which variants agree.

    Args:
        fingerprints: those of the cells of one seed (see `fingerprint`) by the variants' names.
        variants: the number of variants of the study, if some of them may have no fingerprint.
    """
    equal, code, lines, values_differ, sections = [], [], [], False, get_cfg()
    for key in dict.fromkeys(itertools.chain.from_iterable(fingerprints.values())):
        is_value = key.partition(".")[0] in sections  # a configuration key; all others are hashes
        groups: dict[str, list[str]] = {}
        for variant, values in fingerprints.items():
            if key.startswith(_CODE) and key not in values:  # the file came later, or an earlier version kept no hashes
                continue
            groups.setdefault(values.get(key, "default" if is_value else "none"), []).append(variant)
        if len(groups) > 1:
            values_differ |= is_value
            most = _MOST if len(fingerprints) <= _MOST else 2
            shown = {v: _named(names, most) for v, names in groups.items()}
            named = [f"{v} in {names}" if is_value else names for v, names in shown.items()]
            many = f"{len(groups)} different values in {len(fingerprints)} variants"
            lines.append(f"{key} differs: {' | '.join(named) if len(groups) <= _MOST else many}")
        elif not is_value:
            (code if key.startswith(_CODE) else equal).append(key)
    equal += code if len(code) <= _MOST else [f"{_CODE}{len(code)} files"]
    if not values_differ:
        equal.append("configuration except for the pyramid")
    found = len(fingerprints)
    compared = f"all {found} variants"
    if variants is not None and variants > found:
        compared = f"{found} of {variants} variants (the others have no fingerprints)"
    return [f"equal in {compared}: {', '.join(equal) or 'nothing'}", *lines]


def _named(variants: Sequence[str], most: int) -> str:
    """Return the names of variants, or of many the first one and the number of the others."""
    return ", ".join(variants) if len(variants) <= most else f"{variants[0]} and {len(variants) - 1} others"


def differences_by_seed(identities: Mapping[Cell, Mapping[str, Any]]) -> list[tuple[list[int], list[str]]]:
    """Return the `differences` between the variants of each seed, as [(seeds, lines), …]; equal lines are merged.

    `identities` are what `CellFolder.identity` returns for each cell. Cells without a fingerprint do not count.
    """
    by_seed: dict[int, dict[str, Mapping[str, str]]] = {}
    for cell, identity in identities.items():
        if identity.get("fingerprint"):
            code = {f"{_CODE}{file}": version for file, version in identity.get("imports", {}).items()}
            by_seed.setdefault(cell.seed, {})[cell.variant.name] = identity["fingerprint"] | code
    merged: dict[tuple[str, ...], list[int]] = {}
    variants = Counter(cell.seed for cell in identities)
    for seed, fingerprints in by_seed.items():
        if len(fingerprints) > 1:
            merged.setdefault(tuple(differences(fingerprints, variants[seed])), []).append(seed)
    return [(seeds, list(lines)) for lines, seeds in merged.items()]
