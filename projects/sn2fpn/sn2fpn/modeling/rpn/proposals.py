"""Choose each image's proposals from the predictions for its best anchors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...structures import Boxes, Instances
from ..box_coding import BoxCoder
from ..nms import grouped_nms
from ..transfer import tensor_like
from .head import TopAnchors

__all__ = ["clip_boxes", "top_proposals"]


def top_proposals(
    anchors: Tensor,
    top: TopAnchors,
    image_sizes: Sequence[tuple[int, int]],
    box_coder: BoxCoder,
    *,
    post_nms_topk: int,
    nms_thresh: float,
    min_box_size: float = 0.0,
    must_be_finite: bool = False,
) -> list[Instances]:
    """Return the best boxes of all levels of each image.

    The boxes are decoded, clipped to the image and thinned by non-maximum suppression within each level. Then the
    best of all levels are kept.

    Args:
        anchors (Tensor[R, 4]): the anchors of all levels.
        top: the predictions that compete.
        image_sizes: the (height, width) of each of the N images, without padding.
        box_coder: decodes the offsets.
        post_nms_topk: number of proposals to keep per image.
        nms_thresh: the IoU above which the weaker of two boxes of a level is removed.
        min_box_size: both sides of a box must be longer than this, in pixels.
        must_be_finite: whether predictions that are not finite are an error. They are dropped otherwise.

    Returns:
        For each image `proposal_boxes` and `objectness_logits`, best first.

    Raises:
        FloatingPointError: `must_be_finite` is set and a prediction is not finite.
    """
    score, box = top.logits, box_coder.decode(top.deltas, anchors[top.anchor])  # (N, K) and (N, K, 4)
    finite = box.isfinite().all(-1) & score.isfinite()
    if must_be_finite and not finite.all():
        raise FloatingPointError(
            "the RPN's proposals (boxes or objectness) are not finite because training has diverged; "
            "lower the learning rate, lengthen the warm-up, or check the initial weights"
        )
    box = clip_boxes(box, image_sizes)
    valid = finite & (box[..., 2:] - box[..., :2] > min_box_size).all(-1)
    out = []
    for n, size in enumerate(image_sizes):
        some = valid[n].nonzero().squeeze(1)
        keep = some[grouped_nms(box[n, some], score[n, some], top.level[some], nms_thresh)[:post_nms_topk]]
        out.append(Instances(size, proposal_boxes=Boxes(box[n, keep]), objectness_logits=score[n, keep]))
    return out


def clip_boxes(boxes: Tensor, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Clip boxes (Tensor[N, K, 4]) to the borders of N images of (height, width)."""
    limit = tensor_like([(w, h, w, h) for h, w in image_sizes], boxes)[:, None]
    return torch.minimum(boxes.clamp(min=0), limit)
