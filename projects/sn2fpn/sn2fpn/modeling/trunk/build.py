"""ResNets of the standard depths, from plain arguments or from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from ...errors import UserError, did_you_mean
from ...layers import FrozenBatchNorm2d
from .blocks import BasicBlock, BasicStem, BottleneckBlock, DeepESDStem, ESDOptions, TrunkPart
from .resnet import ResNet

__all__ = ["build_trunk", "frozen_norm_warning", "make_resnet"]

logger = logging.getLogger(__name__)

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STAGES = ("res2", "res3", "res4", "res5")
_LIGHT = (18, 34)  # depths made of BasicBlocks


def build_trunk(cfg: Any) -> ResNet:
    """The ResNet that the configuration describes, with Detectron2's meaning of each key.

    Raises:
        UserError: a value that does not exist, does not fit the depth, or is not supported.
    """
    resnets, esd = cfg.MODEL.RESNETS, cfg.MODEL.ESD
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise UserError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE {list(resnets.DEFORM_ON_PER_STAGE)}: deformable stages are not "
            "supported by the native engine; set it to [False, False, False, False]"
        )
    return make_resnet(
        resnets.DEPTH,
        in_channels=len(cfg.MODEL.PIXEL_MEAN),
        stem_out_channels=resnets.STEM_OUT_CHANNELS,
        res2_out_channels=resnets.RES2_OUT_CHANNELS,
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        norm=resnets.NORM,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        res5_dilation=resnets.RES5_DILATION,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        esd=_esd_options(cfg),
        esd_stem=esd.STEM,
        esd_stages=esd.STAGES,
    )


def make_resnet(
    depth: int = 50,
    *,
    in_channels: int = 3,
    stem_out_channels: int = 64,
    res2_out_channels: int | None = None,
    num_groups: int = 1,
    width_per_group: int = 64,
    norm: str = "FrozenBN",
    stride_in_1x1: bool = True,
    res5_dilation: int = 1,
    out_features: Sequence[str] = _STAGES,
    freeze_at: int = 2,
    esd: ESDOptions | None = None,
    esd_stem: str = "pool",
    esd_stages: Sequence[str] = _STAGES[1:],
) -> ResNet:
    """A ResNet of a standard depth.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: of the images.
        stem_out_channels: of the stem's map.
        res2_out_channels: of res2, doubled by every later stage; None: 64 for depths 18 and 34, else 256.
        num_groups, width_per_group: of the 3x3 convs of bottlenecks; their product is the width in res2.
        norm: see `sn2fpn.layers.get_norm`.
        stride_in_1x1: stride 2 of a bottleneck in its first 1x1 conv (MSRA's weights), not in its 3x3.
        res5_dilation: 2 keeps res5 at the resolution of res4.
        out_features: the maps to return, of "stem", "res2", …, "res5".
        freeze_at: number of frozen parts: 0 none, 1 the stem, 2 the stem and res2, …
        esd: how stride-2 steps downsample with ESD; None: as in a plain ResNet.
        esd_stem: where ESD is in the stem: "pool" (in place of the max-pool), "none", or "deep" (a stem of its own).
        esd_stages: the stages whose first block downsamples with ESD.

    Raises:
        UserError: a value that does not exist or does not fit the depth; it is named as in a YAML config.
    """
    if res2_out_channels is None:
        res2_out_channels = 64 if depth in _LIGHT else 256
    _check(depth, res2_out_channels, num_groups, res5_dilation, out_features, freeze_at)
    if esd is not None:
        _check_esd(esd, esd_stem, esd_stages, res5_dilation)
    channels, width = res2_out_channels, num_groups * width_per_group
    block_in = stem_out_channels
    stages: dict[str, list[TrunkPart]] = {}
    for name, count in zip(_STAGES, _BLOCKS[depth]):
        dilation = res5_dilation if name == "res5" else 1
        stages[name] = []
        for i in range(count):
            # A dilated res5 keeps the resolution of res4.
            stride = 2 if i == 0 and name != "res2" and dilation == 1 else 1
            common: dict[str, Any] = dict(stride=stride, norm=norm, esd=esd if i == 0 and name in esd_stages else None)
            if depth in _LIGHT:
                block: TrunkPart = BasicBlock(block_in, channels, **common)
            else:
                block = BottleneckBlock(
                    block_in,
                    channels,
                    bottleneck_channels=width,
                    num_groups=num_groups,
                    stride_in_1x1=stride_in_1x1,
                    dilation=dilation,
                    **common,
                )
            stages[name].append(block)
            block_in = channels
        channels, width = 2 * channels, 2 * width
    if esd is not None and esd_stem == "deep":
        stem: TrunkPart = DeepESDStem(in_channels, stem_out_channels, norm, esd)
    else:
        stem = BasicStem(in_channels, stem_out_channels, norm, esd if esd_stem == "pool" else None)
    trunk = ResNet(stem, stages, out_features, freeze_at)
    if esd is not None:
        if stride_in_1x1 and depth not in _LIGHT and esd_stages:
            logger.info(
                "stride_in_1x1 (MODEL.RESNETS.STRIDE_IN_1X1) is True: ESD needs the stride in the 3x3 conv2, so the "
                "first blocks of %s have it there",
                ", ".join(esd_stages),
            )
        _warn_of_new_parts(trunk, freeze_at)
    return trunk


def _esd_options(cfg: Any) -> ESDOptions | None:
    esd = cfg.MODEL.ESD
    if not esd.ENABLED:
        return None
    _one_of("MODEL.ESD.MODE", esd.MODE, (0, 1, 2))
    _one_of("MODEL.ESD.FUSE_INIT", esd.FUSE_INIT, ("auto", "dense_identity", "default"))
    fuse_init = esd.FUSE_INIT
    if fuse_init == "auto":
        fuse_init = "dense_identity" if cfg.MODEL.WEIGHTS else "default"
    mode = esd.MODE or (1 if cfg.MODEL.RESNETS.DEPTH in _LIGHT else 2)
    return ESDOptions(mode, esd.SHORTCUT, fuse_init)


def _check(
    depth: int, res2_out_channels: int, num_groups: int, res5_dilation: int, out_features: Sequence[str], freeze_at: int
) -> None:
    prefix = "MODEL.RESNETS."
    _one_of(prefix + "DEPTH", depth, _BLOCKS)
    _one_of(prefix + "RES5_DILATION", res5_dilation, (1, 2))
    _one_of("MODEL.BACKBONE.FREEZE_AT", freeze_at, range(6))
    if not out_features:
        raise UserError(f"{prefix}OUT_FEATURES is empty{did_you_mean('', ('stem', *_STAGES))}")
    for name in out_features:
        _one_of(prefix + "OUT_FEATURES", name, ("stem", *_STAGES))
    if depth in _LIGHT:
        found = {"RES2_OUT_CHANNELS": res2_out_channels, "RES5_DILATION": res5_dilation, "NUM_GROUPS": num_groups}
        for key, needed in (("RES2_OUT_CHANNELS", 64), ("RES5_DILATION", 1), ("NUM_GROUPS", 1)):
            if found[key] != needed:
                raise UserError(
                    f"{prefix}{key} is {found[key]}, but a ResNet-{depth} needs {needed}: set {prefix}{key} {needed}"
                )


def _check_esd(esd: ESDOptions, stem: str, stages: Sequence[str], res5_dilation: int) -> None:
    _one_of("MODEL.ESD.MODE", esd.mode, (1, 2))
    _one_of("MODEL.ESD.STEM", stem, ("pool", "none", "deep"))
    _one_of("MODEL.ESD.SHORTCUT", esd.shortcut, ("strided", "avg"))
    _one_of("MODEL.ESD.FUSE_INIT", esd.fuse_init, ("dense_identity", "default"))
    for name in stages:
        _one_of("MODEL.ESD.STAGES", name, _STAGES[1:])
    if res5_dilation == 2 and "res5" in stages:
        raise UserError(
            "MODEL.ESD.STAGES has res5, which does not downsample with MODEL.RESNETS.RES5_DILATION 2: "
            "leave res5 out, or set RES5_DILATION 1"
        )


def _one_of(key: str, value: Any, choices: Collection[Any]) -> None:
    if value not in choices:
        raise UserError(f"{key}: found {value!r}{did_you_mean(str(value), map(str, choices))}")


def _warn_of_new_parts(trunk: ResNet, freeze_at: int) -> None:
    """Say which trainable parts, new with ESD, lie within the frozen ones."""
    frozen = {id(block) for part in trunk.parts()[:freeze_at] for block in part}
    new = [f"{name}.{part}" for name, block in trunk.named_modules() if id(block) in frozen for part in block.new_parts]
    if new:
        logger.warning(
            "freeze_at (MODEL.BACKBONE.FREEZE_AT) %d freezes the trunk up to %s, but parts that only ESD has are new "
            "there and go on training: %s. What is frozen behind them was trained without them; lower freeze_at to let "
            "it adapt",
            freeze_at,
            ("stem", *_STAGES)[freeze_at - 1],
            ", ".join(new),
        )


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
        "diverge: start from pretrained weights (MODEL.WEIGHTS; train.init_checkpoint in a .py config); or, from "
        "scratch, set the trunk's norm (MODEL.RESNETS.NORM) to BN, SyncBN or GN and its freeze_at "
        "(MODEL.BACKBONE.FREEZE_AT) to 0"
    )
