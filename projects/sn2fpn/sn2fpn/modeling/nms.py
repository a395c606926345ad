"""Non-maximum suppression within groups (levels, classes)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

__all__ = ["grouped_nms"]


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same group by more than `iou_threshold`.

    Args:
        boxes: (N, 4) `(x1, y1, x2, y2)`.
        scores: (N,) the higher the better.
        groups: (N,) integers; boxes of different groups never meet.
        iou_threshold: within [0, 1].

    Returns:
        Indices of the survivors, by falling score.
    """
    boxes, scores = boxes.float(), scores.float()
    if boxes.is_cuda:  # one launch over boxes moved apart; on a CPU the groups one by one are faster
        return batched_nms(boxes, scores, groups, iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    boxes, scores = boxes[order], scores[order]
    counts = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    kept, start = [], 0
    for b, s in zip(boxes.split(counts), scores.split(counts)):
        kept.append(nms(b, s, iou_threshold) + start)
        start += len(s)
    keep = torch.cat(kept) if kept else order
    return order[keep[scores[keep].argsort(descending=True, stable=True)]]
