"""Choose the detections of each image from the predictions for its proposals, and rescale them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...structures import Boxes, Instances
from ..box_coding import BoxCoder
from ..nms import grouped_nms
from ..soft_nms import SoftNMS
from .mask_pasting import paste_masks

__all__ = ["rescale_boxes", "rescale_detections", "select_detections"]


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
    soft_nms: SoftNMS | None = None,
) -> list[Instances]:
    """Return the best boxes of each image.

    Boxes that score above the threshold are decoded, clipped to the image and thinned by non-maximum suppression
    within each class.

    Args:
        scores (Tensor[R, K + 1]): the class probabilities of the proposals of all images, the background last.
        deltas (Tensor[R, K or 1, 4]): the offsets from the proposals.
        proposals (Tensor[R_n, 4] per image): the proposals of each image.
        image_sizes: the (height, width) of each image.
        box_coder: decodes the offsets.
        score_thresh: a box must score higher than this.
        nms_thresh: the IoU above which the weaker of two boxes of a class is removed.
        max_detections: largest number of detections per image; -1 means no limit.
        soft_nms: lowers the scores of overlapping boxes of a class in place of removing them.

    Returns:
        For each image `pred_boxes`, `scores` and `pred_classes`, best first.
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
        if soft_nms is None:
            keep = grouped_nms(boxes.tensor, score, cls, nms_thresh)
            keep = keep if max_detections < 0 else keep[:max_detections]
            score = score[keep]
        else:
            keep, score = soft_nms(boxes.tensor, score, cls, nms_thresh, score_thresh, max_detections)
        out.append(Instances(size, pred_boxes=boxes[keep], scores=score, pred_classes=cls[keep]))
    return out


def rescale_detections(detections: Instances, height: int, width: int) -> Instances:
    """Return detections in the pixels of an image of (height, width), without boxes that are empty there.

    Args:
        detections: detections with `pred_boxes` in the pixels of the image that the model saw. They are not changed.
            `pred_masks`, the probabilities within the boxes (Tensor[N, 1, M, M]), become bitmaps of the image
            (Tensor[N, height, width], bool).
        height: height of the image in pixels.
        width: width of the image in pixels.
    """
    rescaled = rescale_boxes(detections, height, width)
    if rescaled.has("pred_masks"):
        rescaled.pred_masks = paste_masks(rescaled.pred_masks[:, 0], rescaled.pred_boxes.tensor, (height, width))
    return rescaled


def rescale_boxes(detections: Instances, height: int, width: int) -> Instances:
    """Do what `rescale_detections` does, but leave the masks as probabilities within the boxes."""
    scale_y, scale_x = height / detections.image_size[0], width / detections.image_size[1]
    boxes = detections.pred_boxes.clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip((height, width))
    fields = {**detections.get_fields(), "pred_boxes": boxes}
    return Instances((height, width), **fields)[boxes.nonempty()]
