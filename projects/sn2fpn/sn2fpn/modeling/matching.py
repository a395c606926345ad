"""Which ground-truth box, if any, an anchor or proposal stands for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError

__all__ = ["Matcher"]


class Matcher:
    """Matches each candidate box to its best ground-truth box, and labels it by the IoU with that.

    Args:
        thresholds: rising IoUs t1 < t2 … that cut [0, 1] into ranges [0, t1), [t1, t2) …
        labels: the label of each range: 1 positive, 0 negative, -1 ignored; one more than `thresholds`.
        allow_low_quality: also make positive, for each ground truth, the candidates that overlap it most
            (ties included), however little that is (Faster R-CNN, section 3.1.2, rule i). They keep the
            ground truth that they themselves overlap most.
        where: the configuration's group, for messages ("MODEL.RPN"); "": they name the arguments.
    """

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality: bool = False, where: str = ""
    ) -> None:
        names = (f"{where}.IOU_THRESHOLDS", f"{where}.IOU_LABELS") if where else ("thresholds", "labels")
        if list(thresholds) != sorted(thresholds) or not all(t > 0 for t in thresholds):
            raise UserError(f"{names[0]} expects rising numbers above 0, found {list(thresholds)}")
        if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
            raise UserError(
                f"{names[1]} expects {len(thresholds) + 1} of -1, 0 and 1 (one more than "
                f"{names[0].rpartition('.')[2]}), found {list(labels)}"
            )
        self.thresholds = tuple(thresholds)
        self.labels = tuple(labels)
        self.allow_low_quality = allow_low_quality

    def __call__(self, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Match M ground-truth boxes and N candidates.

        Args:
            iou: (M, N) overlaps; M may be 0.

        Returns:
            (N,) int64 index of each candidate's best ground truth (0 where there is none), and (N,) int8
            label.
        """
        if iou.shape[0] == 0:
            n = iou.shape[1]
            return iou.new_zeros(n, dtype=torch.int64), iou.new_full((n,), self.labels[0], dtype=torch.int8)
        best, index = iou.max(dim=0)
        ranges = torch.bucketize(best, best.new_tensor(self.thresholds), right=True)
        labels = torch.tensor(self.labels, dtype=torch.int8, device=iou.device)[ranges]
        if self.allow_low_quality and iou.shape[1]:
            labels[(iou == iou.amax(dim=1, keepdim=True)).any(dim=0)] = 1
        return index, labels
