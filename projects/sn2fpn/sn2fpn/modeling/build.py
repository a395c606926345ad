"""From a configuration to a detector; says which of Detectron2's options this engine does not serve."""

from __future__ import annotations

from typing import Any

import torch

from ..config import CfgNode
from ..errors import UserError, did_you_mean
from ..layers import get_norm
from .backbone import build_backbone
from .detector import GeneralizedRCNN
from .losses import BOX_LOSSES
from .roi_heads import build_roi_heads
from .rpn import build_rpn

__all__ = ["build_model", "check_device", "check_norms", "check_served"]

# key -> the values that the native engine serves
_SERVED: dict[str, tuple[Any, ...]] = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead",),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": BOX_LOSSES,
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads",),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead",),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": BOX_LOSSES,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": (False,),
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": (False,),
    "MODEL.KEYPOINT_ON": (False,),
    "MODEL.LOAD_PROPOSALS": (False,),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "TEST.AUG.ENABLED": (False,),
    "TEST.PRECISE_BN.ENABLED": (False,),
}
_SERVED_WITH_MASKS: dict[str, tuple[Any, ...]] = {
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead",),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
}


def check_served(cfg: CfgNode) -> None:
    """Raise UserError for the first configuration value that the native engine cannot serve."""
    for key, served in {**_SERVED, **(_SERVED_WITH_MASKS if cfg.MODEL.MASK_ON else {})}.items():
        value: Any = cfg
        for part in key.split("."):
            value = value[part]
        if value not in served:
            expected = " or ".join(map(repr, served))
            hint = did_you_mean(value, served) if isinstance(value, str) and len(served) > 1 else ""
            raise UserError(f"{key}: the native engine serves {expected}, found {value!r}{hint}")
    check_norms(cfg)


def check_norms(cfg: Any, skip: tuple[str, ...] = ()) -> None:
    """Raise UserError for the first NORM in the groups of MODEL (but those that start as `skip` says) that is none."""
    for name, group in cfg.MODEL.items():
        if isinstance(group, dict) and group.get("NORM") and not name.startswith(skip):
            try:
                get_norm(group["NORM"], 32)
            except UserError as e:
                raise UserError(f"MODEL.{name}.NORM: {e}") from e


def build_model(cfg: CfgNode) -> GeneralizedRCNN:
    """The detector of a configuration, on `MODEL.DEVICE`, in training mode, with fresh weights.

    Weights named by `MODEL.WEIGHTS` are loaded by `sn2fpn.checkpoint`.

    Raises:
        UserError: a value that the native engine does not serve, names that do not exist, or a missing device.
    """
    check_served(cfg)
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


def check_device(name: str, key: str = "MODEL.DEVICE") -> torch.device:
    """The device of that name; `key` says where it is set. Raises UserError when there is none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{key}: no such device {name!r}{did_you_mean(name, ('cpu', 'cuda'))}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"{key} is {name!r}, but {torch.cuda.device_count()} GPUs are visible; expected 'cpu'")
    return device
