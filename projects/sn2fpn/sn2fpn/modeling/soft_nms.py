"""Soft non-maximum suppression (Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017).

Plain suppression removes a box that overlaps a better one too much. Soft suppression lowers its score instead, by the
more the more it overlaps, so that an object that stands close to another of its class can still be found.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area

from ..errors import check_choice
from ..ranges import check_number

__all__ = ["SOFT_NMS_KINDS", "SoftNMS"]

SOFT_NMS_KINDS = ("gaussian", "linear")


class SoftNMS:
    """Soft non-maximum suppression within groups.

    The best box is taken, the scores of the others in its group are multiplied by a factor, and the same is done with
    the rest. With the overlap u of a box with the one that was taken, the factor is exp(-u^2 / sigma) ("gaussian"), or
    1 - u where u is greater than the IoU threshold and else 1 ("linear").

    Args:
        kind: "gaussian" or "linear".
        sigma: width of the Gaussian; "linear" does not read it.

    Raises:
        ArgumentError: `kind` is unknown, or `sigma` is not greater than 0.
    """

    def __init__(self, kind: str, sigma: float = 0.5) -> None:
        self.kind = check_choice("kind", kind, SOFT_NMS_KINDS)
        self.sigma = check_number("sigma", sigma, above=0)

    @torch.no_grad()
    def __call__(
        self, boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, score_thresh: float, limit: int = -1
    ) -> tuple[Tensor, Tensor]:
        """Return the indices of the boxes that are kept (int64 Tensor), and their new scores, by falling score.

        All groups take their best box at once, so that the number of steps is that of the largest group.

        Args:
            boxes (Tensor[N, 4]): corners `(x1, y1, x2, y2)`.
            scores (Tensor[N]): scores of at least 0, the higher the better.
            groups (integer Tensor[N]): only boxes of the same group lower each other's scores.
            iou_threshold: overlap from which on "linear" lowers scores; "gaussian" does not read it.
            score_thresh: boxes whose new score is not above this are removed.
            limit: the largest number of boxes that are kept; a negative number means no limit.
        """
        if not len(boxes):
            return groups.new_zeros(0, dtype=torch.int64), scores
        index = _rows_of_groups(groups)
        rows, gone = boxes.float()[index], index < 0
        live = scores.float()[index]
        steps = index.shape[1] if limit < 0 else min(index.shape[1], limit)
        each, taken, new = torch.arange(len(index), device=boxes.device), [], []
        for _ in range(steps):
            live = live.masked_fill(gone, -torch.inf)
            score, best = live.max(1)
            taken.append(index[each, best])
            new.append(score)
            if not (score > score_thresh).any():
                break
            live = live * self._factors(_overlaps(rows[each, best], rows), iou_threshold)
            gone[each, best] = True
        kept, score = torch.stack(taken), torch.stack(new)
        kept, score = kept[score > score_thresh], score[score > score_thresh]
        order = kept.argsort()  # so that equal scores follow the order of the boxes
        order = order[score[order].argsort(descending=True, stable=True)]
        order = order if limit < 0 else order[:limit]
        return kept[order], score[order].to(scores.dtype)

    def _factors(self, overlaps: Tensor, iou_threshold: float) -> Tensor:
        if self.kind == "gaussian":
            return torch.exp(-overlaps.square() / self.sigma)
        return torch.where(overlaps > iou_threshold, 1 - overlaps, 1.0)

    def __repr__(self) -> str:
        return f"SoftNMS({self.kind!r}, sigma={self.sigma:g})"


def _rows_of_groups(groups: Tensor) -> Tensor:
    """Return a row of the indices of each group, in rising order and filled up with -1 (Tensor[G, M])."""
    order = groups.argsort(stable=True)
    _, row, counts = torch.unique_consecutive(groups[order], return_inverse=True, return_counts=True)
    first = counts.cumsum(0) - counts
    out = order.new_full((len(counts), int(counts.max())), -1)
    out[row, torch.arange(len(order), device=order.device) - first[row]] = order
    return out


def _overlaps(best: Tensor, rows: Tensor) -> Tensor:
    """Return the IoU of one box of each group (Tensor[G, 4]) with all boxes of the group (Tensor[G, M, 4])."""
    low = torch.maximum(best[:, None, :2], rows[..., :2])
    high = torch.minimum(best[:, None, 2:], rows[..., 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = (rows[..., 2:] - rows[..., :2]).prod(2)
    return (shared / (box_area(best)[:, None] + areas - shared)).nan_to_num(0)
