"""From predictions for every anchor to each image's best boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structures import Boxes, Instances
from .box_coding import BoxCoder
from .nms import grouped_nms
from .rpn_head import TopAnchors

__all__ = ["clip_boxes", "top_proposals"]


def top_proposals(
    anchors: Sequence[Tensor],
    top: Sequence[TopAnchors],
    image_sizes: Sequence[tuple[int, int]],
    box_coder: BoxCoder,
    *,
    post_nms_topk: int,
    nms_thresh: float,
    min_box_size: float = 0.0,
    must_be_finite: bool = False,
) -> list[Instances]:
    """Best boxes of each level, decoded, clipped, thinned by NMS within levels; then the best of all levels.

    Args:
        anchors: per level, (R, 4).
        top: per level, the predictions that compete.
        image_sizes: (height, width) of each of the N images, without padding.
        post_nms_topk: proposals kept per image.
        nms_thresh: IoU above which the weaker of two boxes of a level goes.
        min_box_size: both sides must be longer, in pixels.
        must_be_finite: raise when a prediction is not finite, instead of dropping it.

    Returns:
        Per image `proposal_boxes` and `objectness_logits`, best first.

    Raises:
        FloatingPointError: see `must_be_finite`.
    """
    score = torch.cat([t.logits for t in top], dim=1)  # (N, K)
    box = box_coder.decode(
        torch.cat([t.deltas for t in top], dim=1), torch.cat([a[t.anchor] for a, t in zip(anchors, top)], dim=1)
    )
    level_of = torch.cat([torch.full_like(t.anchor[0], level) for level, t in enumerate(top)])  # (K,)
    finite = box.isfinite().all(-1) & score.isfinite()
    if must_be_finite and not finite.all():
        raise FloatingPointError(
            "the RPN's proposals (boxes or objectness) are not finite: training has diverged; "
            "lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or check MODEL.WEIGHTS"
        )
    box = clip_boxes(box, image_sizes)
    valid = finite & (box[..., 2:] - box[..., :2] > min_box_size).all(-1)
    out = []
    for n, size in enumerate(image_sizes):
        some = valid[n].nonzero().squeeze(1)
        keep = some[grouped_nms(box[n, some], score[n, some], level_of[some], nms_thresh)[:post_nms_topk]]
        out.append(Instances(size, proposal_boxes=Boxes(box[n, keep]), objectness_logits=score[n, keep]))
    return out


def clip_boxes(boxes: Tensor, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Boxes (N, K, 4) cut at the borders of N images of (height, width)."""
    limit = boxes.new_tensor([(w, h, w, h) for h, w in image_sizes])[:, None]
    return torch.minimum(boxes.clamp(min=0), limit)
