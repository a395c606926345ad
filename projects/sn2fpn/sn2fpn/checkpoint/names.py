"""Translate parameter names of other libraries into Detectron2's, which are ours too.

The others are Caffe2 (its Detectron and its ImageNet models) and torchvision's ResNets. The names of a file that holds
only a trunk stay without `backbone.bottom_up.`; `matching` finds their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..errors import UserError

__all__ = ["detect_format", "to_detectron2_names"]

# The rules are applied to Caffe2's names in this order.
_CAFFE2_RULES: tuple[tuple[str, str], ...] = (
    # parameter kinds
    (r"_(?:bn|gn)_(?:s|gamma)$", ".norm.weight"),
    (r"_(?:bn|gn)_(?:b|beta|bias)$", ".norm.bias"),
    (r"_bn_(?:rm|running_mean)$", ".norm.running_mean"),
    (r"_bn_(?:riv|running_var)$", ".norm.running_var"),
    (r"_w$", ".weight"),
    (r"_b$", ".bias"),
    # trunk
    (r"^(?:res_)?conv1\.", "stem.conv1."),
    (r"^(res\d)_(\d+)_branch1\.", r"\1.\2.shortcut."),
    (r"^(res\d)_(\d+)_branch2a\.", r"\1.\2.conv1."),
    (r"^(res\d)_(\d+)_branch2b\.", r"\1.\2.conv2."),
    (r"^(res\d)_(\d+)_branch2c\.", r"\1.\2.conv3."),
    # pyramid
    (r"^fpn_inner_res(\d)_\d+_sum(?:_lateral)?\.", r"fpn_lateral\1."),
    (r"^fpn_res(\d)_\d+_sum\.", r"fpn_output\1."),
    # RPN, whose shared head Caffe2 defines on level 2
    (r"^conv_rpn(?:_fpn2)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn_bbox_pred(?:_fpn2)?\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^rpn_cls_logits(?:_fpn2)?\.", "proposal_generator.rpn_head.objectness_logits."),
    # box head
    (r"^fc6\.", "box_head.fc1."),
    (r"^fc7\.", "box_head.fc2."),
    (r"^head_conv(\d)\.", r"box_head.conv\1."),
    (r"^bbox_pred\.", "box_predictor.bbox_pred."),
    (r"^cls_score\.", "box_predictor.cls_score."),
    # mask head
    (r"^_\[mask\]_fcn(\d)\.", r"mask_head.mask_fcn\1."),
    (r"^conv5_mask\.", "mask_head.deconv."),
    (r"^mask_fcn_logits\.", "mask_head.predictor."),
)

_TORCHVISION_RULES: tuple[tuple[str, str], ...] = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"layer\1.\2.shortcut."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"layer\1.\2.shortcut.norm."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", r"layer\1.\2.conv\3.norm."),
)


def detect_format(names: Iterable[str], author: str = "") -> str:
    """Return whose names these are: "caffe2", "torchvision" or "detectron2"."""
    names = list(names)
    if author == "Caffe2" or any(re.search(r"_branch\d[a-c]?_|^conv1_w$", n) for n in names):
        return "caffe2"
    if any(re.match(r"layer\d\.\d+\.(conv|bn|downsample)", n) for n in names):
        return "torchvision"
    return "detectron2"


def to_detectron2_names(weights: Mapping[str, Tensor], naming: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename tensors, and reorder their entries where the layout of the other library differs.

    Args:
        weights: the tensors by their names in the file.
        naming: whose names these are, see `detect_format`.

    Returns:
        The tensors by Detectron2's names, and the name in the file of each of these.

    Raises:
        UserError: two names in the file stand for one.
    """
    renamed: dict[str, Tensor] = {}
    originals: dict[str, str] = {}
    for original, tensor in weights.items():
        if naming == "caffe2" and original.endswith("_momentum"):
            continue  # Caffe2's training files hold buffers of the optimizer.
        name = _rename(original, naming)
        if name in renamed:
            raise UserError(f"{originals[name]!r} and {original!r} both stand for {name!r}")
        renamed[name] = _background_last(name, tensor) if naming == "caffe2" else tensor
        originals[name] = original
    return renamed, originals


def _rename(name: str, naming: str) -> str:
    rules = {"caffe2": _CAFFE2_RULES, "torchvision": _TORCHVISION_RULES}.get(naming, ())
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    if naming == "torchvision":  # Its stages count from 1, so layer1 is res2.
        name = re.sub(r"^layer(\d)\.", lambda match: f"res{int(match.group(1)) + 1}.", name)
    return name


def _background_last(name: str, tensor: Tensor) -> Tensor:
    """Move the background from class 0, where Caffe2 has it, to the last class.

    The box and mask weights of the background, which mean nothing, are dropped.
    """
    if tensor.ndim == 0:  # It has no classes, and will not fit the model either.
        return tensor
    if name.startswith("box_predictor.cls_score."):
        return torch.cat([tensor[1:], tensor[:1]])
    if name.startswith("box_predictor.bbox_pred."):
        return tensor[4:]
    if name.startswith("mask_head.predictor."):
        return tensor[1:]
    return tensor
