"""Non-maximum suppression within groups, which are levels for proposals and classes for detections."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import batched_nms

from ..layers.cpu.nms import nms_per_group

__all__ = ["grouped_nms"]


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same group by more than `iou_threshold`.

    Args:
        boxes (Tensor[N, 4]): corners `(x1, y1, x2, y2)`.
        scores (Tensor[N]): scores, the higher the better.
        groups (integer Tensor[N]): only boxes of the same group suppress each other.
        iou_threshold: largest overlap that two survivors of a group may have, within [0, 1].

    Returns:
        Indices of the survivors (int64 Tensor), by falling score.
    """
    nms = nms_per_group if boxes.is_cpu else batched_nms
    return nms(boxes.float(), scores.float(), groups, iou_threshold)
