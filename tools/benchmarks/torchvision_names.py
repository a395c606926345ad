"""Weights for torchvision's detectors that are equal to those of a detector with Detectron2's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sn2fpn.study.measure.workload import fill_weights

__all__ = ["to_torchvision"]

_RENAMES = [  # from torchvision's names to Detectron2's
    (r"^backbone\.body\.conv1\.", "backbone.bottom_up.stem.conv1."),
    (r"^backbone\.body\.bn1\.", "backbone.bottom_up.stem.conv1.norm."),
    (r"^backbone\.body\.layer(\d)\.", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}."),
    (r"(res\d\.\d+)\.bn(\d)\.", r"\1.conv\2.norm."),
    (r"downsample\.0\.", "shortcut."),
    (r"downsample\.1\.", "shortcut.norm."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.0\.", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.0\.", lambda m: f"backbone.fpn_output{int(m[1]) + 2}."),
    (r"^rpn\.head\.conv\.0\.0\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box_head.fc2."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_heads.mask_head.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_heads.mask_head.predictor."),
]
# Torchvision has deltas and masks of the background, which is its first class. In Detectron2 the background is the last
# class and has neither.
_OF_BACKGROUND = {"roi_heads.box_predictor.bbox_pred.": 4, "roi_heads.mask_head.predictor.": 1}
_SCORES = "roi_heads.box_predictor.cls_score."


def to_torchvision(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor] | None:
    """Return made-up weights for a torchvision detector, or None if it has other parameters than expected.

    Args:
        state: the detector's state dict.
        shapes: the shapes of the parameters that are expected, in Detectron2's names.
    """
    names = {name: _renamed(name) for name in state}
    expected = {names[name]: value[_background_rows(names[name]) :] for name, value in state.items()}
    if {name: tuple(value.shape) for name, value in expected.items()} != {n: tuple(s) for n, s in shapes.items()}:
        return None
    filled = fill_weights(expected)
    return {name: _with_background(filled[names[name]], names[name]) for name in state}


def _renamed(name: str) -> str:
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _background_rows(name: str) -> int:
    return next((rows for prefix, rows in _OF_BACKGROUND.items() if name.startswith(prefix)), 0)


def _with_background(value: Tensor, name: str) -> Tensor:
    """Return the weight with the rows of the background in torchvision's order."""
    if name.startswith(_SCORES):
        return torch.cat([value[-1:], value[:-1]])
    return torch.cat([torch.zeros_like(value[: _background_rows(name)]), value])
