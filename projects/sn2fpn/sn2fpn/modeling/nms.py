"""Non-maximum suppression within groups, which are levels for proposals and classes for detections."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import batched_nms, nms

from ..layers.cpu.nms import nms_per_group

__all__ = ["grouped_nms"]

_MOST_AT_ONCE = 25_000
"""The number of boxes up to which torchvision's kernel for GPUs, whose work grows with the square, runs once."""


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same group by more than `iou_threshold`.

    Args:
        boxes (Tensor[N, 4]): finite corners `(x1, y1, x2, y2)`.
        scores (Tensor[N]): scores, the higher the better.
        groups (integer Tensor[N]): only boxes of the same group suppress each other.
        iou_threshold: largest overlap that two survivors of a group may have, within [0, 1].

    Returns:
        Indices of the survivors (int64 Tensor), by falling score.
    """
    suppress = nms_per_group if boxes.is_cpu else _nms_at_once
    return suppress(boxes.float(), scores.float(), groups, iou_threshold)


def _nms_at_once(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Return what `nms_per_group` returns, with one wait for a GPU instead of several for each group.

    The groups are moved apart, so that they do not overlap. In float64 this does not round the corners.
    """
    if not 0 < len(boxes) <= _MOST_AT_ONCE:
        return batched_nms(boxes, scores, groups, iou_threshold)
    corners = boxes.double()
    shift = groups * (corners.max() - corners.min() + 1)
    return nms(corners + shift[:, None], scores.double(), iou_threshold)
