"""Build ResNets of the standard depths from plain arguments or from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from torch import nn

from ...errors import ArgumentError, UserError, argument_names, check_choice, keys_of
from ...layers import FrozenBatchNorm2d
from ...ranges import check_count
from .blocks import BasicBlock, BasicStem, BottleneckBlock, DeepESDStem, ESDOptions, TrunkPart
from .resnet import ResNet
from .timm_model import PREFIX, TimmTrunk

__all__ = ["build_trunk", "frozen_norm_warning", "make_resnet"]

logger = logging.getLogger(__name__)

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STAGES = ("res2", "res3", "res4", "res5")
_LIGHT = (18, 34)  # depths made of BasicBlocks


def build_trunk(cfg: Any) -> ResNet | TimmTrunk:
    """Return the trunk that `MODEL.BACKBONE.TRUNK` names: a ResNet with Detectron2's keys, or a model of timm.

    Raises:
        UserError: a value does not exist, does not fit the depth, or is not supported.
    """
    resnets, esd = cfg.MODEL.RESNETS, cfg.MODEL.ESD
    if cfg.MODEL.BACKBONE.TRUNK != "resnet":
        return _build_timm(cfg)
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise UserError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE: found {list(resnets.DEFORM_ON_PER_STAGE)}, but this project's trunk "
            "has no deformable stages; set it to [False, False, False, False]"
        )
    names = keys_of(
        "MODEL.RESNETS", freeze_at="MODEL.BACKBONE.FREEZE_AT", esd_stem="MODEL.ESD.STEM", esd_stages="MODEL.ESD.STAGES"
    )
    with argument_names(names):
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
            esd=_esd_options(cfg) if esd.ENABLED else None,
            esd_stem=esd.STEM,
            esd_stages=esd.STAGES,
        )


def _build_timm(cfg: Any) -> TimmTrunk:
    key, trunk = "MODEL.BACKBONE.TRUNK", cfg.MODEL.BACKBONE.TRUNK
    if not trunk.startswith(PREFIX):
        raise ArgumentError(key, f"expected 'resnet' or 'timm/NAME', such as 'timm/convnext_tiny', found {trunk!r}")
    if cfg.MODEL.ESD.ENABLED:
        problem = f"ESD changes how a ResNet downsamples, found True with {key} {trunk}; set it to False"
        raise ArgumentError("MODEL.ESD.ENABLED", problem)
    names = {"name": key, "out_features": "MODEL.RESNETS.OUT_FEATURES", "freeze_at": "MODEL.BACKBONE.FREEZE_AT"}
    with argument_names(names):
        return TimmTrunk(
            trunk.removeprefix(PREFIX),
            in_channels=len(cfg.MODEL.PIXEL_MEAN),
            out_features=cfg.MODEL.RESNETS.OUT_FEATURES,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )


def _esd_options(cfg: Any) -> ESDOptions:
    """Return the options of `MODEL.ESD`, of which MODE 0 and FUSE_INIT "auto" depend on other keys."""
    esd = cfg.MODEL.ESD
    with argument_names(keys_of("MODEL.ESD")):
        mode = check_choice("mode", esd.MODE, (0, 1, 2))
        fuse_init = check_choice("fuse_init", esd.FUSE_INIT, ("auto", "dense_identity", "default"))
        if mode == 0:
            mode = 1 if cfg.MODEL.RESNETS.DEPTH in _LIGHT else 2
        if fuse_init == "auto":
            fuse_init = "dense_identity" if cfg.MODEL.WEIGHTS else "default"
        return ESDOptions(mode, esd.SHORTCUT, fuse_init)


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
    """Return a ResNet of a standard depth.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: number of channels of the images.
        stem_out_channels: number of output channels of the stem.
        res2_out_channels: number of output channels of res2, which every later stage doubles. None means 64 for
            depths 18 and 34 and 256 otherwise.
        num_groups: number of groups of the 3x3 convolutions in bottleneck blocks.
        width_per_group: width of each group in res2; the 3x3 convolutions have `num_groups * width_per_group` channels.
        norm: the norm, see `sn2fpn.layers.get_norm`.
        stride_in_1x1: whether the first 1x1 convolution of a bottleneck block has the stride, as in MSRA's weights,
            instead of the 3x3 convolution.
        res5_dilation: 2 keeps res5 at the resolution of res4, 1 does not.
        out_features: names of the maps to return, out of "stem", "res2", ..., "res5".
        freeze_at: number of frozen parts: 0 for none, 1 for the stem, 2 for the stem and res2, and so on.
        esd: how stride-2 steps downsample with ESD; None makes a plain ResNet.
        esd_stem: where the stem has ESD: "pool" (in place of the max-pool), "none", or "deep" (a stem of its own).
        esd_stages: names of the stages whose first block downsamples with ESD.

    Raises:
        ArgumentError: a value does not exist or does not fit the depth.
    """
    if res2_out_channels is None:
        res2_out_channels = 64 if depth in _LIGHT else 256
    _check(depth, res5_dilation, out_features, freeze_at)
    counts = dict(stem_out_channels=stem_out_channels, res2_out_channels=res2_out_channels)
    for name, number in {**counts, "num_groups": num_groups, "width_per_group": width_per_group}.items():
        check_count(name, number)
    if depth in _LIGHT:
        _check_light(depth, res2_out_channels=res2_out_channels, num_groups=num_groups, res5_dilation=res5_dilation)
    if esd is not None:
        _check_esd(esd_stem, esd_stages, res5_dilation)
    stages: dict[str, list[TrunkPart]] = {}
    in_stage = stem_out_channels
    for i, (name, count) in enumerate(zip(_STAGES, _BLOCKS[depth])):
        dilation = res5_dilation if name == "res5" else 1
        make: Callable[..., TrunkPart] = partial(BasicBlock, norm=norm)
        if depth not in _LIGHT:
            make = partial(
                BottleneckBlock,
                bottleneck_channels=2**i * num_groups * width_per_group,
                num_groups=num_groups,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
                dilation=dilation,
            )
        channels = 2**i * res2_out_channels
        stride = 1 if name == "res2" or dilation == 2 else 2  # A dilated res5 keeps the resolution of res4.
        first = make(in_stage, channels, stride=stride, esd=esd if name in esd_stages else None)
        stages[name] = [first, *(make(channels, channels) for _ in range(count - 1))]
        in_stage = channels
    if esd is not None and esd_stem == "deep":
        stem: TrunkPart = DeepESDStem(in_channels, stem_out_channels, norm, esd)
    else:
        stem = BasicStem(in_channels, stem_out_channels, norm, esd if esd_stem == "pool" else None)
    trunk = ResNet(stem, stages, out_features, freeze_at)
    if esd is not None:
        if stride_in_1x1 and depth not in _LIGHT and esd_stages:
            logger.info(
                "stride_in_1x1 is True, but ESD needs the stride in the 3x3 convolution: the first blocks of %s have "
                "it there",
                ", ".join(esd_stages),
            )
        _warn_of_new_parts(trunk, freeze_at)
    return trunk


def _check(depth: int, res5_dilation: int, out_features: Sequence[str], freeze_at: int) -> None:
    check_choice("depth", depth, _BLOCKS)
    check_choice("res5_dilation", res5_dilation, (1, 2))
    check_choice("freeze_at", freeze_at, range(6))
    if not out_features:
        raise ArgumentError("out_features", f"expected at least one of {['stem', *_STAGES]}, found none")
    for name in out_features:
        check_choice("out_features", name, ("stem", *_STAGES))


def _check_light(depth: int, **found: int) -> None:
    """Check the arguments that have a single valid value for depths made of `BasicBlock`."""
    for argument, needed in (("res2_out_channels", 64), ("num_groups", 1), ("res5_dilation", 1)):
        if found[argument] != needed:
            raise ArgumentError(argument, f"a ResNet-{depth} needs {needed}, found {found[argument]}")


def _check_esd(esd_stem: str, esd_stages: Sequence[str], res5_dilation: int) -> None:
    check_choice("esd_stem", esd_stem, ("pool", "none", "deep"))
    for name in esd_stages:
        check_choice("esd_stages", name, _STAGES[1:])
    if esd_stem == "none" and not esd_stages:
        raise ArgumentError("esd_stages", "with the stem 'none', expected a stage for ESD, which changes nothing else")
    if res5_dilation == 2 and "res5" in esd_stages:
        raise ArgumentError(
            "esd_stages",
            "res5 does not downsample with a dilation of 2; leave res5 out, or set the dilation of res5 to 1",
        )


def _warn_of_new_parts(trunk: ResNet, freeze_at: int) -> None:
    """Log which trainable parts that ESD adds lie within the frozen parts of the trunk."""
    frozen = {id(block) for part in trunk.parts()[:freeze_at] for block in part}
    new = [f"{name}.{part}" for name, block in trunk.named_modules() if id(block) in frozen for part in block.new_parts]
    if new:
        logger.warning(
            "freeze_at is %d, which freezes the trunk up to %s, but the parts that ESD adds there are new and go on "
            "training: %s. The frozen layers after them were trained without them; lower freeze_at to let them adapt",
            freeze_at,
            ("stem", *_STAGES)[freeze_at - 1],
            ", ".join(new),
        )


def frozen_norm_warning(model: nn.Module, loaded_names: Collection[str]) -> str | None:
    """Return a warning if frozen batch norms kept their initial values, or None if all were loaded.

    Frozen norms do not normalise; they replay statistics. Without loaded statistics the activations of a deep trunk
    grow from block to block and training diverges.

    Args:
        model: the model after its weights were loaded.
        loaded_names: state-dict names whose values came from a file (`Checkpointer.report.loaded`).
    """
    loaded = set(loaded_names)
    norms = [name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    bare = [name for name in norms if f"{name}.weight" not in loaded]
    if not bare:
        return None
    shown = ", ".join(bare[:4]) + (f", ... ({len(bare)} in all)" if len(bare) > 4 else "")
    if len(bare) < len(norms):
        return (
            f"the weights file has no statistics for these frozen batch norms: {shown}. They do nothing, so the "
            "layers before them train without normalisation"
        )
    return (
        f"no frozen batch norm has loaded statistics ({shown}), so nothing is normalised and training is likely to "
        "diverge. Start from pretrained weights; or, to train from scratch, set the trunk's norm to BN, SyncBN or GN "
        "and its freeze_at to 0"
    )
