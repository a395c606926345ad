"""From predictions for every anchor to each image's best boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structures import Boxes, Instances
from .box_coding import BoxCoder
from .nms import grouped_nms

__all__ = ["clip_boxes", "top_proposals"]


@torch.no_grad()
def top_proposals(
    anchors: Sequence[Tensor],
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    box_coder: BoxCoder,
    *,
    pre_nms_topk: int,
    post_nms_topk: int,
    nms_thresh: float,
    min_box_size: float = 0.0,
    must_be_finite: bool = False,
) -> list[Instances]:
    """Best boxes of each level, decoded, clipped, thinned by NMS within levels; then the best of all levels.

    Proposals are constants for the later stages, so nothing is recorded for the backward pass.

    Args:
        anchors, logits, deltas: per level, (R, 4), (N, R) and (N, R, 4).
        image_sizes: (height, width) of each of the N images, without padding.
        pre_nms_topk: anchors kept per level, the only ones that are decoded.
        post_nms_topk: proposals kept per image.
        min_box_size: both sides must be longer, in pixels.
        must_be_finite: raise when a prediction is not finite, instead of dropping it.

    Returns:
        Per image `proposal_boxes` and `objectness_logits`, best first.
    """
    scores, boxes, levels = [], [], []
    for level, (a, s, d) in enumerate(zip(anchors, logits, deltas)):
        top_scores, index = s.float().topk(min(pre_nms_topk, s.shape[1]), dim=1)
        top_deltas = d.gather(1, index[..., None].expand(-1, -1, 4))
        scores.append(top_scores)
        boxes.append(box_coder.decode(top_deltas, a[index]))
        levels.append(torch.full_like(index[0], level))
    score, box, level_of = torch.cat(scores, 1), torch.cat(boxes, 1), torch.cat(levels)  # (N, K), (N, K, 4), (K,)
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
