"""Small detectors whose weights are filled so that there are detections, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from golden_detectron2 import filler
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.export.comparison import detections_of
from sn2fpn.modeling import GeneralizedRCNN, build_model

CONFIG = Path(__file__).parents[2] / "configs/quick/mask_rcnn_R18_sni_shapes.yaml"
KEYS: dict[str, Any] = {
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.6,
    "INPUT.MIN_SIZE_TEST": 96,
    "INPUT.MAX_SIZE_TEST": 160,
    "DATALOADER.NUM_WORKERS": 0,
}
CASCADE: dict[str, Any] = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.4,  # means over stages are lower
}
_CONVOLUTIONS: dict[str, Any] = {"MODEL.ROI_BOX_HEAD.NUM_CONV": 1, "MODEL.ROI_BOX_HEAD.CONV_DIM": 32}
_CONVOLUTIONS["MODEL.ROI_MASK_HEAD.CONV_DIM"] = 32
NORMED_HEADS = {
    norm: _CONVOLUTIONS | {"MODEL.ROI_BOX_HEAD.NORM": norm, "MODEL.ROI_MASK_HEAD.NORM": norm}
    for norm in ("BN", "GN", "FrozenBN")
}
SPREAD = {"objectness_logits": 1.0, "anchor_deltas": 0.2, "cls_score": 1.5, "bbox_pred": 1.0, "predictor": 2.0}
"""The standard deviations that the last layers' outputs get on `picture(0)`."""


def picture(seed: int, height: int = 97, width: int = 150) -> Tensor:
    """Return a picture (uint8 Tensor[3, height, width]) of blobs and rectangles."""
    return torch.from_numpy(filler.make_image(seed, height, width).transpose(2, 0, 1).copy())


def as_list(keys: dict[str, Any]) -> list[str]:
    return [str(x) for pair in keys.items() for x in pair]


def small_config(changes: dict[str, Any] | None = None) -> CfgNode:
    """Return the configuration of a small Mask R-CNN with changes."""
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list(as_list(KEYS | (changes or {})))
    return cfg


def filled(cfg: CfgNode) -> GeneralizedRCNN:
    """Return a detector with filled weights in evaluation mode, whose scores are spread and whose maps vary.

    Batch norms get the statistics of a picture, and the last layers are scaled, so that rounding is not amplified.
    """
    torch.manual_seed(0)
    model = build_model(cfg)
    filler.fill_model(model, {"weights": {"gains": [], "set": {}, "salt": ""}})
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        model.backbone(model.preprocess_image([{"image": picture(seed, 128, 160)} for seed in range(4)]).tensor)
    model.eval()
    named = {name: m for name, m in model.named_modules() if name.rpartition(".")[2] in SPREAD}
    hooks = [m.register_forward_hook(_standardise(SPREAD[n.rpartition(".")[2]])) for n, m in named.items()]
    detections_of(model, picture(0))
    for hook in hooks:
        hook.remove()
    return model


def _standardise(spread: float) -> Callable[..., Tensor | None]:
    """Return a hook that changes a layer at its first call so that its outputs have mean 0 and this deviation."""
    called: list[bool] = []

    @torch.no_grad()
    def hook(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if called:
            return None
        called.append(True)
        pixels = [d for d in range(output.dim()) if d != 1]
        mean = output.mean(pixels, keepdim=True)
        factor = spread / (output - mean).std()
        layer.weight.mul_(factor)
        layer.bias.sub_(mean.flatten()).mul_(factor)
        return (output - mean) * factor

    return hook
