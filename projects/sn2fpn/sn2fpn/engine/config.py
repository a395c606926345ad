"""The YAML configuration of a run: reading it, checking it and scaling its schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ..config import CfgNode, get_cfg
from ..config.ranges import check_ranges
from ..config.values import value_at
from ..data import build_augmentations
from ..pyramids import backbone_names, overridden_keys, unread_groups
from .options import YAML_KEYS, check_options, read_options

__all__ = ["load_config", "remarks", "scale_to_world_size", "validate"]

_SWITCHES = {
    "INPUT.CROP": "ENABLED",
    "INPUT.PHOTOMETRIC": "ENABLED",
    "INPUT.SCALE_JITTER": "ENABLED",
    "INPUT.MOSAIC": "PROB",
    "INPUT.COPY_PASTE": "PROB",
    "MODEL.ESD": "ENABLED",
    "MODEL.ROI_HEADS.SOFT_NMS": "METHOD",
    "SOLVER.AMP": "ENABLED",
    "SOLVER.CLIP_GRADIENTS": "ENABLED",
    "SOLVER.EMA": "ENABLED",
    "TEST.AUG": "ENABLED",
}
"""The groups that have no effect unless their key with this name is on."""
_RESIZES = ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TRAIN_SAMPLING")


def load_config(args: Any) -> CfgNode:
    """Return the configuration of a command line: the defaults, changed by the file, then by KEY VALUE pairs.

    Raises:
        UserError: an unknown key, a value of the wrong type, or values that contradict each other.
    """
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    validate(cfg, args)
    cfg.OUTPUT_DIR = os.path.expanduser(cfg.OUTPUT_DIR)  # noqa: PTH111 - which keeps "./", and "~nobody" as it is
    return cfg


def validate(cfg: CfgNode, args: Any = None) -> None:
    """Check what would otherwise fail hours later, in either engine.

    Args:
        cfg: the configuration.
        args: the command line, from `default_argument_parser`; None stands for training in the present processes.

    Raises:
        UserError: keys and flags contradict each other, or a value is out of range.
    """
    check_ranges(cfg)
    options = read_options(cfg, YAML_KEYS)
    check_options(options, args, has_train=bool(cfg.DATASETS.TRAIN), has_test=bool(cfg.DATASETS.TEST))
    build_augmentations(cfg, is_train=True)
    build_augmentations(cfg, is_train=False)


def remarks(cfg: CfgNode) -> list[str]:
    """Return what a user should know about a configuration that is valid, one sentence each."""
    lines, name = list(_unread_by_backbone(cfg)), cfg.MODEL.BACKBONE.NAME
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" and "retinanet" in name and name in backbone_names():
        usual = name.replace("_retinanet_", "_").replace("build_retinanet_", "build_")
        lines.append(
            f"MODEL.BACKBONE.NAME {name} makes p6 and p7 with RetinaNet's convolutions, which start from fresh "
            f"weights; the usual backbone of a Faster or Mask R-CNN is {usual}"
        )
    lines += _switched_off(cfg)
    if cfg.TEST.PATIENCE and not cfg.TEST.EVAL_PERIOD:
        lines.append("TEST.EVAL_PERIOD is 0, which leaves TEST.PATIENCE without effect")
    if 0 in cfg.INPUT.MIN_SIZE_TRAIN:
        lines.append("INPUT.MIN_SIZE_TRAIN 0 keeps the size of training images, without the limit of MAX_SIZE_TRAIN")
    return lines


def _unread_by_backbone(cfg: CfgNode) -> Iterator[str]:
    """Yield a sentence for the changed keys that the pyramid does not read, and for those that the trunk does not."""
    name, trunk = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.TRUNK
    unread = [key for group in sorted(unread_groups(name)) for key in _changed(cfg, f"MODEL.{group}")]
    if unread:
        yield f"MODEL.BACKBONE.NAME {name} does not read {', '.join(unread)}, which therefore have no effect"
    changed = _changed(cfg, "MODEL.FPN")
    for key, own in overridden_keys(cfg).items():
        if key in changed and changed[key] != value_at(cfg, own):
            yield f"MODEL.BACKBONE.NAME {name} reads {own} in place of {key}, which therefore has no effect"
    unread = [key for key in _changed(cfg, "MODEL.RESNETS") if key != "MODEL.RESNETS.OUT_FEATURES"]
    if trunk != "resnet" and unread:
        yield f"MODEL.BACKBONE.TRUNK {trunk} does not read {', '.join(unread)}, which therefore have no effect"


def _switched_off(cfg: CfgNode) -> Iterator[str]:
    """Yield a sentence for each group that is off although keys of it were changed."""
    for group, switch in _SWITCHES.items():
        found = value_at(cfg, f"{group}.{switch}")
        changed = [key for key in _changed(cfg, group) if key != f"{group}.{switch}"]
        if changed and not found:
            yield f"{group}.{switch} is {found!r}, which leaves {', '.join(changed)} without effect"
    if cfg.INPUT.SCALE_JITTER.ENABLED:
        changed = [key for key in _changed(cfg, "INPUT") if key.removeprefix("INPUT.") in _RESIZES]
        if changed:
            yield f"INPUT.SCALE_JITTER.ENABLED is True, which leaves {', '.join(changed)} without effect"


def _changed(cfg: CfgNode, group: str) -> dict[str, Any]:
    """Return the keys of a group whose values are not the defaults, with these values."""
    defaults, found = value_at(get_cfg(), group, {}), value_at(cfg, group, {})
    return {f"{group}.{key}": value for key, value in found.items() if value != defaults.get(key, value)}


def scale_to_world_size(cfg: CfgNode, world_size: int) -> CfgNode:
    """Return the configuration with its schedule scaled from SOLVER.REFERENCE_WORLD_SIZE to `world_size` processes.

    The images per batch and the learning rate grow in proportion and the iterations shrink, as in Detectron2 (the
    linear scaling rule of Goyal et al., "Accurate, Large Minibatch SGD", 2017). A reference of 0 means no scaling.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference == 0 or reference == world_size:
        return cfg
    scale = world_size / reference
    cfg = cfg.clone()
    cfg.defrost()
    s = cfg.SOLVER
    s.IMS_PER_BATCH = round(s.IMS_PER_BATCH * scale)
    s.BASE_LR *= scale
    s.MAX_ITER = round(s.MAX_ITER / scale)
    s.WARMUP_ITERS = round(s.WARMUP_ITERS / scale)
    s.STEPS = tuple(round(x / scale) for x in s.STEPS)
    s.CHECKPOINT_PERIOD = round(s.CHECKPOINT_PERIOD / scale)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / scale)
    s.REFERENCE_WORLD_SIZE = world_size
    cfg.freeze()
    return cfg
