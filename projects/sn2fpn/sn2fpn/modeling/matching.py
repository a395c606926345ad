"""Match anchors or proposals with ground-truth boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..ranges import check_each, check_number
from .transfer import tensor_like

__all__ = ["Matcher"]


class Matcher:
    """Matches each candidate box with its best ground-truth box and labels it by their IoU.

    Args:
        thresholds: rising IoUs t1 < t2 < ... that divide [0, 1] into the ranges [0, t1), [t1, t2), ...
        labels: the label of each range: 1 for positive, 0 for negative, -1 for ignored. At least one range is positive,
            unless `allow_low_quality` gives positives.
        allow_low_quality: whether the candidates that overlap a ground-truth box most (ties included) are positive
            too, however small that overlap is (Faster R-CNN, section 3.1.2, rule i). They stay matched with the
            ground-truth box that they themselves overlap most.

    Raises:
        ArgumentError: the thresholds do not rise from above 0 to at most 1, or the labels do not suit them.
    """

    def __init__(self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality: bool = False) -> None:
        thresholds = check_each("thresholds", thresholds, check_number, above=0, at_most=1)
        if not thresholds or thresholds != sorted(thresholds):
            raise ArgumentError("thresholds", f"expected one or more rising IoUs, found {thresholds}")
        labels = check_each("labels", labels, check_number)
        if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
            raise ArgumentError(
                "labels",
                f"expected {len(thresholds) + 1} numbers out of -1, 0 and 1 (one more than there are thresholds), "
                f"found {labels}",
            )
        if 1 not in labels and not allow_low_quality:
            raise ArgumentError("labels", f"expected a 1, because no box would be positive without it, found {labels}")
        self.thresholds = tuple(thresholds)
        self.labels = tuple(labels)
        self.allow_low_quality = allow_low_quality

    def __call__(self, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Match N candidates with M ground-truth boxes.

        Args:
            iou (Tensor[M, N]): the IoU of each pair; M may be 0.

        Returns:
            The index of the best ground-truth box of each candidate (Tensor[N], int64), which is 0 where there is
            none, and the label of each candidate (Tensor[N], int8).
        """
        if iou.shape[0] == 0:
            n = iou.shape[1]
            return iou.new_zeros(n, dtype=torch.int64), iou.new_full((n,), self.labels[0], dtype=torch.int8)
        best, index = iou.max(dim=0)
        ranges = torch.bucketize(best, tensor_like(self.thresholds, best), right=True)
        labels = tensor_like(self.labels, iou, torch.int8)[ranges]
        if self.allow_low_quality and iou.shape[1]:
            labels.masked_fill_((iou == iou.amax(dim=1, keepdim=True)).any(dim=0), 1)
        return index, labels
