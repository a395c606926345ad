"""Build a detector from a configuration, and refuse those of Detectron2's options that this engine does not serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import CfgNode
from ..config.values import value_at
from ..errors import ArgumentError, UserError, argument_names, did_you_mean, keys_of
from ..layers import get_norm
from .backbone import build_backbone
from .detector import GeneralizedRCNN
from .roi_heads import build_roi_heads
from .rpn import build_rpn

__all__ = ["build_model", "check_device", "check_norms", "check_served", "check_trainable", "without_values"]

_SERVED: dict[str, tuple[Any, ...]] = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead",),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads", "CascadeROIHeads"),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead",),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "MODEL.KEYPOINT_ON": (False,),
    "MODEL.LOAD_PROPOSALS": (False,),
}
"""The values of a key that the native engine serves."""
_SERVED_WITH_MASKS: dict[str, tuple[Any, ...]] = {
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead",),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
}
_SERVED_IN_TRAINING: dict[str, tuple[Any, ...]] = {
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": (False,),
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": (False,),
    "TEST.PRECISE_BN.ENABLED": (False,),
}
_WITHOUT_PYRAMID = "; a model without a pyramid (C4) is served by Detectron2 only, see --engine detectron2"


def check_served(cfg: CfgNode) -> None:
    """Raise UserError for the first configuration value with which the native engine does not serve a model."""
    _check(cfg, {**_SERVED, **(_SERVED_WITH_MASKS if cfg.MODEL.MASK_ON else {})})
    check_norms(cfg)


def check_trainable(cfg: CfgNode) -> None:
    """Raise UserError for the first configuration value that the native engine does not serve in a training."""
    _check(cfg, _SERVED_IN_TRAINING)


def _check(cfg: CfgNode, choices: dict[str, tuple[Any, ...]]) -> None:
    for key, served in choices.items():
        value = value_at(cfg, key)
        if value not in served:
            expected = " or ".join(map(repr, served))
            hint = did_you_mean(value, served) if isinstance(value, str) and len(served) > 1 else ""
            hint = _WITHOUT_PYRAMID if value == "Res5ROIHeads" else hint
            raise UserError(f"{key}: the native engine serves {expected}, found {value!r}{hint}")


def check_norms(cfg: Any, skip: tuple[str, ...] = ()) -> None:
    """Raise UserError for the first `MODEL.<group>.NORM` that is not the name of a norm.

    Args:
        cfg: the configuration.
        skip: beginnings of the names of groups that are not checked.
    """
    for name, group in cfg.MODEL.items():
        if isinstance(group, dict) and group.get("NORM") and not name.startswith(skip):
            with argument_names({"norm": f"MODEL.{name}.NORM"}):
                get_norm(group["NORM"], 32)


def build_model(cfg: CfgNode) -> GeneralizedRCNN:
    """Return the detector of a configuration on `MODEL.DEVICE`, in training mode and with fresh weights.

    Weights that `MODEL.WEIGHTS` names are loaded by `sn2fpn.checkpoint`.

    Raises:
        UserError: the native engine does not serve a value, a name does not exist, or the device is missing.
    """
    check_served(cfg)
    with argument_names(keys_of("MODEL", input_format="INPUT.FORMAT")):
        device = check_device(cfg.MODEL.DEVICE)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        model = GeneralizedRCNN(
            backbone,
            build_rpn(cfg, shapes),
            build_roi_heads(cfg, shapes),
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            input_format=cfg.INPUT.FORMAT,
        )
    return model.to(device)


def check_device(device: str) -> torch.device:
    """Return the device of that name.

    Raises:
        ArgumentError: there is no such device.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        hint = did_you_mean(device, ("cpu", "cuda"))
        raise ArgumentError("device", f"there is no device {device!r}{hint}") from None
    if found.type not in ("cpu", "cuda", "meta"):  # others lack operators and numbers of 64 bits
        raise ArgumentError("device", f"expected 'cpu' or 'cuda', found {device!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ArgumentError("device", f"found {device!r}, but {count} GPUs are visible; expected 'cpu'")
    return found


@contextmanager
def without_values() -> Iterator[None]:
    """Let modules that are built inside have no values: they are on torch's "meta" device and are not initialised.

    Such a model tells its shapes and names. It takes no memory and is built several times as fast as one with values.
    """
    with torch.device("meta"), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    """A context that leaves tensors of the "meta" device as they are, where initial values would be filled in."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return func(*args, **kwargs)


_FILLING = {
    Tensor.fill_,
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.zero_,
    nn.init.constant_,
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
}
"""The functions that fill a tensor with initial values, as such a context sees them."""
