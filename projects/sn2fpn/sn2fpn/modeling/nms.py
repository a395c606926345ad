"""Non-maximum suppression within groups (levels, classes)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

__all__ = ["grouped_nms"]

_PAIRS_WORTH_THREADS = 2_000_000  # about 5 ms on one core


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
    kept = _for_each(lambda b, s: nms(b, s, iou_threshold), boxes.split(counts), scores.split(counts))
    starts = itertools.accumulate(counts, initial=0)
    keep = torch.cat([order[:0], *(k + start for k, start in zip(kept, starts))])
    return order[keep[scores[keep].argsort(descending=True, stable=True)]]


def _for_each(function: Callable[..., Tensor], boxes: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Tensor]:
    """`function` of each group; in threads where that pays (torchvision's CPU NMS runs on one core)."""
    threads = torch.get_num_threads()
    if threads == 1 or len(boxes) == 1 or sum(len(s) ** 2 for s in scores) < _PAIRS_WORTH_THREADS:
        return list(map(function, boxes, scores))
    with ThreadPoolExecutor(min(threads, len(boxes))) as pool:
        return list(pool.map(function, boxes, scores))
