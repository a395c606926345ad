"""Test-time augmentation: a detector sees each image in several sizes and mirrored, and the detections are merged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import CfgNode
from ..data.augmentation import ResizeShortestEdge
from ..data.transforms import Flip, Resize, Size, TransformList
from ..errors import ArgumentError, argument_names
from ..ranges import check_count, check_each
from ..structures import Boxes, Instances
from .detector import GeneralizedRCNN
from .nms import grouped_nms
from .roi_heads.mask_head import mask_probabilities
from .roi_heads.postprocess import rescale_detections

__all__ = ["MultiViewDetector", "build_multi_view"]


class MultiViewDetector(nn.Module):
    """A detector that finds objects in several views of each image.

    The boxes of all views are brought back to the image and thinned by non-maximum suppression within each class; a box
    keeps the score that it has in its view. For masks, the mask branch sees the boxes that are left in every view, and
    the mean of its probabilities counts. Detectron2's `GeneralizedRCNNWithTTA` does the same.

    The detector is called as a `GeneralizedRCNN` in evaluation mode, and cannot be trained.

    Args:
        detector: the detector.
        short_edges: lengths in pixels to which the short edge of images is resized; without any, images keep their
            size.
        max_size: the limit of the long edge in pixels.
        flip: whether there is also a mirrored view of each size.
        views_per_batch: number of views that are computed at once.

    Raises:
        ArgumentError: a number is out of its range, or there are neither sizes nor a mirrored view.
    """

    def __init__(
        self,
        detector: GeneralizedRCNN,
        short_edges: Sequence[int] = (),
        max_size: int = sys.maxsize,
        flip: bool = True,
        views_per_batch: int = 3,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.short_edges = check_each("short_edges", short_edges, check_count)
        self.max_size = check_count("max_size", max_size)
        self.flip = flip
        self.views_per_batch = check_count("views_per_batch", views_per_batch)
        if not flip and not self.short_edges:
            raise ArgumentError("short_edges", "expected lengths in pixels because `flip` is off, found none")

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Return the detections of each image, see `GeneralizedRCNN.forward`."""
        found = self.inference(batched_inputs, do_postprocess=False)
        return [{"instances": rescale_detections(d, *d.image_size)} for d in found]

    @torch.no_grad()
    def inference(
        self, batched_inputs: Sequence[dict[str, Any]], do_postprocess: bool = True
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Return the same as `forward`, or without `do_postprocess` the Instances themselves.

        These are in the pixels that `height` and `width` of the inputs say, and their `pred_masks` are probabilities
        within the boxes (Tensor[N, 1, M, M]).
        """
        return self.forward(batched_inputs) if do_postprocess else [self._detect(x) for x in batched_inputs]

    def _detect(self, x: dict[str, Any]) -> Instances:
        size = x.get("height", x["image"].shape[1]), x.get("width", x["image"].shape[2])
        views, transforms = self._views(x["image"], size)
        boxes, scores, classes = [], [], []
        for batch in self._batches(views):
            images = self.detector.preprocess_image(batch)
            features = self.detector.backbone(images.tensor)
            proposals, _ = self.detector.proposal_generator(images, features)
            for found in self.detector.roi_heads.detect(images, features, proposals):
                boxes.append(_back(transforms[len(boxes)], found.pred_boxes))
                scores.append(found.scores)
                classes.append(found.pred_classes)
        merged = self._merge(Boxes(torch.cat(boxes)), torch.cat(scores), torch.cat(classes), size)
        if self.detector.roi_heads.mask_head is not None:
            merged.pred_masks = self._masks(views, transforms, merged)
        return merged

    def _views(self, image: Tensor, size: Size) -> tuple[list[dict[str, Tensor]], list[TransformList]]:
        """Return the views of an image [C, H, W], and how each comes from the image in its original size."""
        pixels, given = image.permute(1, 2, 0).cpu().numpy(), (image.shape[1], image.shape[2])
        views, transforms = [], []
        for edge in self.short_edges or [0]:
            new = ResizeShortestEdge.new_size(given, edge, self.max_size) if edge else given
            resized = Resize(given, new).apply_image(pixels)
            for mirror in (False, True)[: 1 + self.flip]:
                view = Flip(new).apply_image(resized) if mirror else resized
                views.append({"image": torch.from_numpy(np.array(view.transpose(2, 0, 1), order="C"))})
                steps = [Resize(size, given), Resize(given, new), *([Flip(new)] if mirror else [])]
                transforms.append(TransformList(steps))
        return views, transforms

    def _batches(self, views: Sequence[dict[str, Tensor]]) -> Iterator[Sequence[dict[str, Tensor]]]:
        for first in range(0, len(views), self.views_per_batch):
            yield views[first : first + self.views_per_batch]

    def _merge(self, boxes: Boxes, scores: Tensor, classes: Tensor, size: Size) -> Instances:
        boxes.clip(size)
        keep = grouped_nms(boxes.tensor, scores, classes, self.detector.roi_heads.nms_thresh)
        keep = keep if self.detector.roi_heads.max_detections < 0 else keep[: self.detector.roi_heads.max_detections]
        return Instances(size, pred_boxes=boxes[keep], scores=scores[keep], pred_classes=classes[keep])

    def _masks(self, views: Sequence[Any], transforms: Sequence[TransformList], merged: Instances) -> Tensor:
        """Return the mean of the mask probabilities of all views (Tensor[N, 1, M, M])."""
        total, seen = torch.tensor(0.0), 0
        for batch in self._batches(views):
            images = self.detector.preprocess_image(batch)
            features = self.detector.backbone(images.tensor)
            steps = transforms[seen : seen + len(batch)]
            boxes = [_forth(t, merged.pred_boxes) for t in steps]
            logits = self.detector.roi_heads.predict_masks(features, boxes)
            masks = mask_probabilities(logits, merged.pred_classes.repeat(len(batch)))
            for mask, t in zip(masks.split([len(merged)] * len(batch)), steps):
                total = total.to(mask) + (mask.flip(3) if isinstance(t[-1], Flip) else mask)
            seen += len(batch)
        return total / seen


def _forth(transforms: TransformList, boxes: Boxes) -> Tensor:
    """Return boxes of the image in pixels of a view."""
    moved = transforms.apply_boxes(boxes.tensor.float().cpu().numpy())
    return torch.from_numpy(moved).to(boxes.device, torch.float32)


def _back(transforms: TransformList, boxes: Boxes) -> Tensor:
    """Return boxes of a view in pixels of the image."""
    inverse = TransformList(Resize(t.new, t.old) if isinstance(t, Resize) else t for t in reversed(transforms))
    return _forth(inverse, boxes)


def build_multi_view(cfg: CfgNode, detector: GeneralizedRCNN) -> MultiViewDetector:
    """Return a detector with the test-time augmentation that `TEST.AUG` describes."""
    c = cfg.TEST.AUG
    with argument_names({"short_edges": "TEST.AUG.MIN_SIZES", "max_size": "TEST.AUG.MAX_SIZE"}):
        return MultiViewDetector(detector, c.MIN_SIZES, c.MAX_SIZE, c.FLIP)
