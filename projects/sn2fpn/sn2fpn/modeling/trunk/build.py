"""The trunk from `MODEL.RESNETS`, `MODEL.ESD` and `MODEL.BACKBONE.FREEZE_AT`."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from torch import nn

from ...errors import UserError, did_you_mean
from ...layers import FrozenBatchNorm2d
from .blocks import BasicBlock, BasicStem, BottleneckBlock, DeepESDStem, ESDOptions, TrunkPart
from .resnet import ResNet

__all__ = ["build_trunk", "frozen_norm_warning"]

logger = logging.getLogger(__name__)

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STAGES = ("res2", "res3", "res4", "res5")
_LIGHT = (18, 34)  # depths made of BasicBlocks


def build_trunk(cfg: Any) -> ResNet:
    """The ResNet that the configuration describes, with Detectron2's meaning of each key.

    Raises:
        UserError: a value that does not exist, does not fit the depth, or is not supported.
    """
    resnets = cfg.MODEL.RESNETS
    _check(cfg)
    esd = _esd_options(cfg)
    esd_stages = tuple(cfg.MODEL.ESD.STAGES) if esd else ()
    channels, width = resnets.RES2_OUT_CHANNELS, resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP
    in_channels = resnets.STEM_OUT_CHANNELS
    stages: dict[str, list[TrunkPart]] = {}
    for name, count in zip(_STAGES, _BLOCKS[resnets.DEPTH]):
        dilation = resnets.RES5_DILATION if name == "res5" else 1
        stages[name] = []
        for i in range(count):
            # A dilated res5 keeps the resolution of res4.
            stride = 2 if i == 0 and name != "res2" and dilation == 1 else 1
            common: dict[str, Any] = dict(
                stride=stride, norm=resnets.NORM, esd=esd if i == 0 and name in esd_stages else None
            )
            if resnets.DEPTH in _LIGHT:
                block: TrunkPart = BasicBlock(in_channels, channels, **common)
            else:
                block = BottleneckBlock(
                    in_channels, channels, bottleneck_channels=width, num_groups=resnets.NUM_GROUPS,
                    stride_in_1x1=resnets.STRIDE_IN_1X1, dilation=dilation, **common,
                )  # fmt: skip
            stages[name].append(block)
            in_channels = channels
        channels, width = 2 * channels, 2 * width
    trunk = ResNet(_stem(cfg, esd), stages, resnets.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT)
    if esd is not None:
        _log_esd(cfg, trunk)
    return trunk


def _stem(cfg: Any, esd: ESDOptions | None) -> TrunkPart:
    in_channels, out_channels = len(cfg.MODEL.PIXEL_MEAN), cfg.MODEL.RESNETS.STEM_OUT_CHANNELS
    norm = cfg.MODEL.RESNETS.NORM
    if esd is not None and cfg.MODEL.ESD.STEM == "deep":
        return DeepESDStem(in_channels, out_channels, norm, esd)
    return BasicStem(in_channels, out_channels, norm, esd if cfg.MODEL.ESD.STEM == "pool" else None)


def _esd_options(cfg: Any) -> ESDOptions | None:
    if not cfg.MODEL.ESD.ENABLED:
        return None
    fuse_init = cfg.MODEL.ESD.FUSE_INIT
    if fuse_init == "auto":
        fuse_init = "dense_identity" if cfg.MODEL.WEIGHTS else "default"
    mode = cfg.MODEL.ESD.MODE or (1 if cfg.MODEL.RESNETS.DEPTH in _LIGHT else 2)
    return ESDOptions(mode, cfg.MODEL.ESD.SHORTCUT, fuse_init)


def _check(cfg: Any) -> None:
    resnets, freeze_at = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.FREEZE_AT
    prefix = "MODEL.RESNETS."
    _one_of(prefix + "DEPTH", resnets.DEPTH, _BLOCKS)
    _one_of(prefix + "RES5_DILATION", resnets.RES5_DILATION, (1, 2))
    _one_of("MODEL.BACKBONE.FREEZE_AT", freeze_at, range(6))
    if not resnets.OUT_FEATURES:
        raise UserError(f"{prefix}OUT_FEATURES is empty{did_you_mean('', ('stem', *_STAGES))}")
    for name in resnets.OUT_FEATURES:
        _one_of(prefix + "OUT_FEATURES", name, ("stem", *_STAGES))
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise UserError(
            f"{prefix}DEFORM_ON_PER_STAGE {list(resnets.DEFORM_ON_PER_STAGE)}: deformable stages are not "
            "supported by the native engine; set it to [False, False, False, False]"
        )
    if resnets.DEPTH in _LIGHT:
        for key, needed in (("RES2_OUT_CHANNELS", 64), ("RES5_DILATION", 1), ("NUM_GROUPS", 1)):
            if resnets[key] != needed:
                raise UserError(
                    f"{prefix}{key} is {resnets[key]}, but a ResNet-{resnets.DEPTH} needs {needed}: "
                    f"set {prefix}{key} {needed}"
                )
    esd = cfg.MODEL.ESD
    if not esd.ENABLED:
        return
    _one_of("MODEL.ESD.MODE", esd.MODE, (0, 1, 2))
    _one_of("MODEL.ESD.STEM", esd.STEM, ("pool", "none", "deep"))
    _one_of("MODEL.ESD.SHORTCUT", esd.SHORTCUT, ("strided", "avg"))
    _one_of("MODEL.ESD.FUSE_INIT", esd.FUSE_INIT, ("auto", "dense_identity", "default"))
    for name in esd.STAGES:
        _one_of("MODEL.ESD.STAGES", name, _STAGES[1:])
    if resnets.RES5_DILATION == 2 and "res5" in esd.STAGES:
        raise UserError(
            "MODEL.ESD.STAGES has res5, which does not downsample with MODEL.RESNETS.RES5_DILATION 2: "
            "leave res5 out, or set RES5_DILATION 1"
        )


def _one_of(key: str, value: Any, choices: Collection[Any]) -> None:
    if value not in choices:
        raise UserError(f"{key}: found {value!r}{did_you_mean(str(value), map(str, choices))}")


def _log_esd(cfg: Any, trunk: ResNet) -> None:
    resnets, freeze_at = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.FREEZE_AT
    if resnets.STRIDE_IN_1X1 and resnets.DEPTH not in _LIGHT and cfg.MODEL.ESD.STAGES:
        logger.info(
            "MODEL.RESNETS.STRIDE_IN_1X1 is True: ESD needs the stride in the 3x3 conv2, so the first blocks "
            "of %s have it there", ", ".join(cfg.MODEL.ESD.STAGES),
        )  # fmt: skip
    frozen = {id(block) for part in trunk.parts()[:freeze_at] for block in part}
    new = [
        f"{name}.{part}"
        for name, block in trunk.named_modules()
        if id(block) in frozen
        for part in block.new_parts
    ]
    if new:
        logger.warning(
            "MODEL.BACKBONE.FREEZE_AT %d freezes the trunk up to %s, but parts that only ESD has are new there "
            "and go on training: %s. What is frozen behind them was trained without them; lower FREEZE_AT to let "
            "it adapt", freeze_at, ("stem", *_STAGES)[freeze_at - 1], ", ".join(new),
        )  # fmt: skip


def frozen_norm_warning(model: nn.Module, loaded_names: Collection[str]) -> str | None:
    """What to tell the user when frozen batch norms kept their initial values; None when all were loaded.

    Frozen norms do not normalise: they replay statistics. Without loaded ones a deep trunk's activations grow
    from block to block and training diverges.

    Args:
        model: after loading weights.
        loaded_names: state-dict names whose values came from a file (`Checkpointer.report.loaded`).
    """
    loaded = set(loaded_names)
    norms = [name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    bare = [name for name in norms if f"{name}.weight" not in loaded]
    if not bare:
        return None
    shown = ", ".join(bare[:4]) + (f", … ({len(bare)} in all)" if len(bare) > 4 else "")
    if len(bare) < len(norms):
        return (
            f"the weights file has no statistics for these frozen batch norms: {shown}. They do nothing, so the "
            "layers before them train without normalisation"
        )
    return (
        f"no frozen batch norm has loaded statistics ({shown}), so nothing is normalised and training is likely to "
        "diverge: set MODEL.WEIGHTS to pretrained weights; or, from scratch, MODEL.RESNETS.NORM to BN, SyncBN or "
        "GN and MODEL.BACKBONE.FREEZE_AT to 0"
    )
