"""From class scores and offsets of proposals to the detections of each image, and to the size asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..structures import Boxes, Instances
from .box_coding import BoxCoder
from .mask_pasting import paste_masks
from .nms import grouped_nms

__all__ = ["rescale_detections", "select_detections"]


def select_detections(
    scores: Tensor,
    deltas: Tensor,
    proposals: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    box_coder: BoxCoder,
    *,
    score_thresh: float,
    nms_thresh: float,
    max_detections: int,
) -> list[Instances]:
    """Confident boxes of every class, clipped, without duplicates within a class; the best of each image.

    Only the (proposal, class) pairs above the threshold are decoded.

    Args:
        scores: (R, K + 1) probabilities for all images' proposals, background last.
        deltas: (R, K or 1, 4) offsets from the proposals.
        proposals: per image, (R_n, 4).
        image_sizes: (height, width) of each image.
        score_thresh: pairs must score higher.
        nms_thresh: IoU above which the weaker of two boxes of a class goes.
        max_detections: per image; negative: no limit.

    Returns:
        Per image `pred_boxes`, `scores` and `pred_classes`, best first.
    """
    counts = [len(p) for p in proposals]
    out = []
    for s, d, p, size in zip(scores.split(counts), deltas.split(counts), proposals, image_sizes):
        s = s[:, :-1]
        row, cls = (s > score_thresh).nonzero().unbind(1)
        score = s[row, cls]
        boxes = Boxes(box_coder.decode(d[row, cls if d.shape[1] > 1 else 0], p[row]))
        finite = boxes.tensor.isfinite().all(1)
        if not finite.all():
            boxes, score, cls = boxes[finite], score[finite], cls[finite]
        boxes.clip(size)
        keep = grouped_nms(boxes.tensor, score, cls, nms_thresh)
        keep = keep if max_detections < 0 else keep[:max_detections]
        out.append(Instances(size, pred_boxes=boxes[keep], scores=score[keep], pred_classes=cls[keep]))
    return out


def rescale_detections(detections: Instances, height: int, width: int) -> Instances:
    """Detections in the pixels of an image of (height, width); boxes that are empty there are removed.

    Args:
        detections: with `pred_boxes`, in the pixels of the image that the model saw; left as it is.
            Masks within the boxes (`pred_masks`, (N, 1, M, M) probabilities) become bitmaps of the image,
            (N, height, width) bool.
    """
    scale_y, scale_x = height / detections.image_size[0], width / detections.image_size[1]
    boxes = detections.pred_boxes.clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip((height, width))
    fields = {**detections.get_fields(), "pred_boxes": boxes}
    rescaled = Instances((height, width), **fields)[boxes.nonempty()]
    if rescaled.has("pred_masks"):
        rescaled.pred_masks = paste_masks(rescaled.pred_masks[:, 0], rescaled.pred_boxes.tensor, (height, width))
    return rescaled
