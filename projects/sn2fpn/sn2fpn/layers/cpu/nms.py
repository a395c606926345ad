"""Non-maximum suppression, one group of boxes after the other or in threads.

`grouped_nms` takes this kernel for boxes on a CPU, where torchvision's `batched_nms` runs on one core; it also compares
boxes of different groups there, as long as there are few of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["nms_per_group"]

_PAIRS_WORTH_THREADS = 2_000_000  # these take about 5 ms on one core


def nms_per_group(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of the boxes that survive, by falling score.

    Args:
        boxes (float32 Tensor[N, 4]): corners `(x1, y1, x2, y2)`.
        scores (float32 Tensor[N]): scores, the higher the better.
        groups (integer Tensor[N]): only boxes of the same group suppress each other.
        iou_threshold: largest overlap that two survivors of a group may have, within [0, 1].
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    boxes, scores = boxes[order], scores[order]
    counts = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    kept = _for_each(lambda b, s: nms(b, s, iou_threshold), boxes.split(counts), scores.split(counts))
    starts = itertools.accumulate(counts, initial=0)
    keep = torch.cat([order[:0], *(k + start for k, start in zip(kept, starts))])
    return order[keep[scores[keep].argsort(descending=True, stable=True)]]


def _for_each(function: Callable[..., Tensor], boxes: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Tensor]:
    """Return the results of all groups, computed in threads where there is enough work for them."""
    threads = torch.get_num_threads()
    if threads == 1 or len(boxes) == 1 or sum(len(s) ** 2 for s in scores) < _PAIRS_WORTH_THREADS:
        return list(map(function, boxes, scores))
    with ThreadPoolExecutor(min(threads, len(boxes))) as pool:
        return list(pool.map(function, boxes, scores))
