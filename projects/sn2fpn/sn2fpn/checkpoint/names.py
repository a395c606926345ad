"""Translate parameter names of other libraries into Detectron2's, which are ours too.

The others are Caffe2 (its Detectron and its ImageNet models), torchvision and mmdetection (ResNets, Faster R-CNN and
Mask R-CNN). The names of parts stay without `backbone.bottom_up.` and the like; `matching` finds their place.
The order of box offsets, of anchors and of the inputs of the first linear layer is Detectron2's in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from ..errors import UserError

__all__ = ["detect_format", "to_detectron2_names", "without_unused_coco_ids"]

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# The rules are applied to Caffe2's names in this order.
_CAFFE2_RULES: Rules = (
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


def _numbered(pattern: str, offset: int) -> Callable[[re.Match[str]], str]:
    """Return a replacement whose last group is a number, which grows by `offset`."""
    return lambda match: pattern.format(*match.groups()[:-1], int(match.groups()[-1]) + offset)


_RESNET_RULES: Rules = (  # Stages count from 1, so layer1 is res2.
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"layer\1.\2.shortcut."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"layer\1.\2.shortcut.norm."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", r"layer\1.\2.conv\3.norm."),
    (r"^layer(\d)\.", _numbered("res{}.", 1)),
)
_TORCHVISION_RULES: Rules = (  # Older versions have no `0.` in the names of convolutions.
    (r"^backbone\.body\.", ""),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?", _numbered("fpn_lateral{}.", 2)),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?", _numbered("fpn_output{}.", 2)),
    (r"^(fpn_\w+\d\.)1\.", r"\1norm."),
    (r"^rpn\.head\.conv\.(?:0\.0\.)?", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc(\d)\.", _numbered("box_head.fc{}.", -5)),
    (r"^roi_heads\.box_predictor\.", "box_predictor."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", _numbered("mask_head.mask_fcn{}.", 1)),
    (r"^roi_heads\.mask_head\.mask_fcn(\d)\.", r"mask_head.mask_fcn\1."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "mask_head.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask_head.predictor."),
    *_RESNET_RULES,
)
_MMDETECTION_RULES: Rules = (
    (r"^backbone\.", ""),
    (r"^neck\.lateral_convs\.(\d)\.(?:conv\.)?", _numbered("fpn_lateral{}.", 2)),
    (r"^neck\.fpn_convs\.(\d)\.(?:conv\.)?", _numbered("fpn_output{}.", 2)),
    (r"^(fpn_\w+\d\.)[bg]n\.", r"\1norm."),
    (r"^rpn_head\.rpn_conv\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn_head\.rpn_cls\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn_head\.rpn_reg\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_head\.bbox_head\.(\d\.)?fc_cls\.", r"box_predictor.\1cls_score."),
    (r"^roi_head\.bbox_head\.(\d\.)?fc_reg\.", r"box_predictor.\1bbox_pred."),
    (r"^roi_head\.bbox_head\.(\d\.)?shared_fcs\.", r"roi_head.bbox_head.\1fc."),
    (r"^roi_head\.bbox_head\.((?:\d\.)?)fc\.(\d)\.", _numbered("box_head.{}fc{}.", 1)),
    (r"^roi_head\.bbox_head\.((?:\d\.)?)shared_convs\.(\d)\.conv\.", _numbered("box_head.{}conv{}.", 1)),
    (r"^roi_head\.mask_head\.convs\.(\d)\.conv\.", _numbered("mask_head.mask_fcn{}.", 1)),
    (r"^roi_head\.mask_head\.upsample\.", "mask_head.deconv."),
    (r"^roi_head\.mask_head\.conv_logits\.", "mask_head.predictor."),
    *_RESNET_RULES,
)
_RULES = {"caffe2": _CAFFE2_RULES, "torchvision": _TORCHVISION_RULES, "mmdetection": _MMDETECTION_RULES}
_BACKGROUND_FIRST = ("caffe2", "torchvision")

_ONLY_DETECTRON2 = ("proposal_generator.", "backbone.bottom_up.")
_RESNET = r"layer\d\.\d+\.(conv|bn|downsample)"
_UNUSED_COCO_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def detect_format(names: Iterable[str], author: str = "") -> str:
    """Return whose names these are: "caffe2", "torchvision", "mmdetection" or "detectron2"."""
    names = list(names)
    if any(n.startswith(_ONLY_DETECTRON2) for n in names):  # a part of a backbone may have any name, such as "fpn"
        return "detectron2"
    if author == "Caffe2" or any(re.search(r"_branch\d[a-c]?_|^conv1_w$", n) for n in names):
        return "caffe2"
    if any(re.match(rf"(backbone\.body\.)?{_RESNET}|backbone\.fpn\.", n) for n in names):
        return "torchvision"
    if any(re.match(rf"backbone\.{_RESNET}|neck\.|roi_head\.", n) for n in names):
        return "mmdetection"
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
        renamed[name] = _background_last(name, tensor) if naming in _BACKGROUND_FIRST else tensor
        originals[name] = original
    return renamed, originals


def _rename(name: str, naming: str) -> str:
    for pattern, replacement in _RULES.get(naming, ()):
        name = re.sub(pattern, replacement, name)
    return name


def without_unused_coco_ids(name: str, tensor: Tensor, rows: int) -> Tensor:
    """Return the rows of COCO's 80 classes out of those of its ids from 1 to 90, which torchvision's detectors predict.

    Args:
        name: Detectron2's name of the tensor.
        tensor: the weights; a background comes last. Others than such weights are returned as they are.
        rows: the number of rows in the model.
    """
    each, background = (4 if "bbox_pred" in name else 1), int("cls_score" in name)
    if tensor.ndim == 0 or (len(tensor), rows) != (90 * each + background, 80 * each + background):
        return tensor
    kept = [each * (i - 1) + j for i in range(1, 91) if i not in _UNUSED_COCO_IDS for j in range(each)]
    return tensor[kept + [len(tensor) - 1] * background]


def _background_last(name: str, tensor: Tensor) -> Tensor:
    """Move the background from class 0, where Caffe2 and torchvision have it, to the last class.

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
