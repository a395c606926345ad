"""The box regression losses of the RPN and the box branch, and the names of all losses."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from .box_coding import BoxCoder

__all__ = ["BOX_LOSSES", "box_regression_loss", "loss_names"]

_IOU_LOSSES: dict[str, Callable[..., Tensor]] = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
BOX_LOSSES = ("smooth_l1", *_IOU_LOSSES)


def box_regression_loss(
    kind: str, coder: BoxCoder, deltas: Tensor, reference: Tensor, target: Tensor, beta: float = 0.0
) -> Tensor:
    """Return the sum over all boxes of the regression loss, in float32.

    "smooth_l1" compares offsets (Fast R-CNN, 2015, eq. 2). "giou", "diou" and "ciou" compare the decoded boxes by
    their generalised, distance and complete IoU.

    Args:
        kind: one of `BOX_LOSSES`.
        coder: encodes or decodes the offsets.
        deltas (Tensor[K, 4]): the predicted offsets from `reference`.
        reference (Tensor[K, 4]): the anchors or proposals.
        target (Tensor[K, 4]): the matched ground-truth boxes.
        beta: for "smooth_l1", the error at which the loss turns from quadratic to linear; 0 means plain L1.

    Returns:
        A tensor without dimensions. For K = 0 it is zero and still part of the graph.
    """
    deltas = deltas.float()
    if kind == "smooth_l1":
        return F.smooth_l1_loss(deltas, coder.encode(reference, target), beta=beta, reduction="sum")
    return _IOU_LOSSES[kind](coder.decode(deltas, reference), target, reduction="sum")


def loss_names(with_masks: bool, stages: int = 0) -> list[str]:
    """Return the names of the losses that a detector returns in training.

    Args:
        with_masks: whether it has a mask branch.
        stages: number of stages of a cascade; 0 means that the box branch is no cascade.
    """
    suffixes = [f"_stage{n}" for n in range(stages)] or [""]
    boxes = [f"{name}{suffix}" for suffix in suffixes for name in ("loss_cls", "loss_box_reg")]
    return ["loss_rpn_cls", "loss_rpn_loc", *boxes, *(["loss_mask"] if with_masks else [])]
