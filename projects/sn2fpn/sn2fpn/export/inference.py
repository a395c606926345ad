"""The inference of a detector as one plain graph: of a single image, without batches, containers and CPU kernels.

`GeneralizedRCNN` works on batches and takes other kernels on a CPU than on a GPU. Exporters need one graph of operators
that other programs know: RoIAlign, NMS and deformable convolutions are those of torchvision, for which ONNX has
operators of its own.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from ..layers import Conv2d, FrozenBatchNorm2d
from ..modeling import BoxHead, GeneralizedRCNN, ROIPooler
from ..modeling.roi_heads.standard import BoxStage

__all__ = ["PlainDetector"]


class PlainDetector(nn.Module):
    """A detector from one image to its detections, made of the modules and weights of a `GeneralizedRCNN`.

    It is in evaluation mode, and its detections are those of the detector, up to rounding.

    Args:
        detector: the detector, which is not changed.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, detector: GeneralizedRCNN) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(detector.backbone)
        _fold_norms(self.backbone.bottom_up, FrozenBatchNorm2d)
        self.proposal_generator = detector.proposal_generator
        self.roi_heads = copy.deepcopy(detector.roi_heads)
        _fold_norms(self.roi_heads, FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm)
        _spell_out_group_norms(self.roi_heads)
        self.register_buffer("pixel_mean", detector.pixel_mean)
        self.register_buffer("pixel_std", detector.pixel_std)
        self.eval()

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the detections of an image, best first.

        Args:
            image (Tensor[C, H, W]): uint8, or floats in the same range, with channels in the detector's
                `input_format`.

        Returns:
            The boxes `(x1, y1, x2, y2)` in pixels of the image (Tensor[N, 4]), the scores (Tensor[N]), the classes
            (int64 Tensor[N]) and, with a mask head, the mask probabilities within the boxes (Tensor[N, M, M]).
        """
        height, width = image.shape[1:]
        features = self.backbone(self._padded((image - self.pixel_mean) / self.pixel_std))
        proposals = self._proposals(features, height, width)
        boxes, scores, classes = self._detections(features, proposals, height, width)
        if self.roi_heads.mask_head is None:
            return boxes, scores, classes
        pooled = _pool(self.roi_heads.mask_pooler, [features[n] for n in self.roi_heads.in_features], boxes)
        logits = self.roi_heads.mask_head(pooled)
        own = logits[:, 0] if logits.shape[1] == 1 else logits[torch.arange(classes.shape[0]), classes]
        return boxes, scores, classes, own.sigmoid()

    def _padded(self, image: Tensor) -> Tensor:
        """Return the image as a batch, padded with zeros to the divisibility of the backbone."""
        step = max(self.backbone.size_divisibility, 1)
        height, width = image.shape[1:]
        rows, columns = ((side + step - 1) // step * step for side in (height, width))
        return F.pad(image, (0, columns - width, 0, rows - height))[None]

    def _proposals(self, features: dict[str, Tensor], height: int, width: int) -> Tensor:
        """Return the proposals (Tensor[R, 4]), best first, as `top_proposals` chooses them."""
        rpn = self.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        kept_boxes, kept_logits = [], []
        for anchors, logits, deltas in zip(rpn.anchor_generator(maps), *rpn.rpn_head(maps)):
            logits, boxes = self._best(logits[0], deltas[0], anchors)
            boxes = _clip(boxes, height, width)
            valid = _larger(boxes, rpn.min_box_size)
            boxes, logits = boxes[valid], logits[valid]
            keep = nms(boxes, logits, rpn.nms_thresh)
            kept_boxes.append(boxes[keep])
            kept_logits.append(logits[keep])
        order = torch.cat(kept_logits).argsort(descending=True)
        return torch.cat(kept_boxes)[order[: rpn.post_nms_topk[1]]]

    def _best(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest logits of a level (Tensor[k]) and their boxes (Tensor[k, 4]).

        Anchors without extent are added, so that k is `pre_nms_topk` also where the level has fewer anchors; a number
        that depends on the size of the image would be a constant in the graph. Boxes without extent are never kept.
        """
        topk = self.proposal_generator.pre_nms_topk[1]
        logits, index = F.pad(logits, (0, topk), value=-torch.inf).topk(topk)
        deltas, anchors = (F.pad(t, (0, 0, 0, topk))[index] for t in (deltas, anchors))
        return logits, self.proposal_generator.box_coder.decode(deltas, anchors)

    def _detections(
        self, features: dict[str, Tensor], proposals: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and classes, best first, as `select_detections` chooses them."""
        heads = self.roi_heads
        probabilities, deltas, proposals = self._stages(features, proposals, height, width)
        row, classes = (probabilities[:, :-1] > heads.score_thresh).nonzero().unbind(1)
        scores = probabilities[row, classes]
        own = deltas[row, classes] if deltas.shape[1] > 1 else deltas[row, 0]
        boxes = _clip(heads.stages[-1].coder.decode(own, proposals[row]), height, width)
        apart = boxes + _offsets(classes, heads.num_classes, height, width)
        keep = nms(apart, scores, heads.nms_thresh)
        if heads.max_detections > 0:
            keep = keep[: heads.max_detections]
        keep = keep[_larger(boxes[keep], 0.0)]
        return boxes[keep], scores[keep], classes[keep]

    def _stages(
        self, features: dict[str, Tensor], boxes: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the box branch predicts for proposals.

        Returns:
            The class probabilities (Tensor[R, K + 1]), which are means over the stages of a cascade, the last stage's
            offsets (Tensor[R, K or 1, 4]), and the boxes that it started from (Tensor[R, 4]).
        """
        heads, (first, *others) = self.roi_heads, self.roi_heads.stages
        maps = [features[name] for name in heads.in_features]

        def predict(stage: BoxStage) -> tuple[Tensor, Tensor]:
            logits, deltas = stage.predictor(_box_features(stage.head, _pool(heads.box_pooler, maps, boxes)))
            return logits.sigmoid() if heads.sigmoid_cls else logits.softmax(dim=1), deltas

        scores, deltas = predict(first)
        for before, stage in zip(heads.stages, others):
            boxes = _clip(before.coder.decode(deltas[:, 0], boxes), height, width)
            own, deltas = predict(stage)
            scores = scores + own
        return scores / len(heads.stages) if others else scores, deltas, boxes


@torch.no_grad()
def _fold_norms(part: nn.Module, *kinds: type[nn.Module]) -> None:
    """Put norms with fixed statistics into the weights of their convolutions, which are then constants of the graph."""
    for conv in part.modules():
        if isinstance(conv, Conv2d) and isinstance(conv.norm, kinds) and conv.norm.running_mean is not None:
            scale, shift = _scale_and_shift(conv.norm)
            bias = shift if conv.bias is None else shift + conv.bias * scale
            conv.weight.mul_(scale.view(-1, 1, 1, 1))
            conv.bias, conv.norm = nn.Parameter(bias), None


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a norm with fixed statistics multiplies each channel with, and what it then adds (Tensor[C])."""
    if isinstance(norm, FrozenBatchNorm2d):
        return norm.scale_and_shift()
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _spell_out_group_norms(heads: nn.Module) -> None:
    """Replace the group norms of heads, because PyTorch's operator asks whether there is any detection."""
    for conv in heads.modules():
        if isinstance(conv, Conv2d) and isinstance(conv.norm, nn.GroupNorm):
            conv.norm = _GroupNorm(conv.norm)


class _GroupNorm(nn.Module):
    """A group norm that is made of simple operators, for any number of maps."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps (Tensor[K, C, P, P])."""
        groups = x.unflatten(1, (self.norm.num_groups, -1))
        groups = groups - groups.mean((2, 3, 4), keepdim=True)
        variance = groups.square().mean((2, 3, 4), keepdim=True)
        y = (groups * (variance + self.norm.eps).rsqrt()).flatten(1, 2)
        if self.norm.weight is None:
            return y
        return y * self.norm.weight.view(-1, 1, 1) + self.norm.bias.view(-1, 1, 1)


def _clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the boxes (Tensor[K, 4]), clipped to the image."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=1)


def _larger(boxes: Tensor, side: float) -> Tensor:
    """Return the indices of the boxes whose sides are both longer than `side`."""
    return (boxes[:, 2:] - boxes[:, :2] > side).all(1).nonzero().squeeze(1)


def _offsets(classes: Tensor, num_classes: int, height: int, width: int) -> Tensor:
    """Return the shift of each box (Tensor[K, 4]) that moves classes apart, so that NMS treats each class by itself.

    The classes lie in a square grid of images, because coordinates lose digits as they grow.
    """
    side = math.ceil(math.sqrt(num_classes))
    x, y = (classes % side) * (width + 1), classes.div(side, rounding_mode="floor") * (height + 1)
    return torch.stack([x, y, x, y], dim=1).float()


def _pool(pooler: ROIPooler, maps: list[Tensor], boxes: Tensor) -> Tensor:
    """Return the features (Tensor[K, C, P, P]) of boxes (Tensor[K, 4]), each from its own level."""
    levels = pooler.levels(boxes)
    rois = F.pad(boxes, (1, 0))  # The index of the image is 0.
    rows = [(levels == level).nonzero().squeeze(1) for level in range(len(maps))]
    pooled = [
        roi_align(m, rois[r], pooler.output_size, 1.0 / stride, max(pooler.sampling_ratio, 0), pooler.aligned)
        for m, r, stride in zip(maps, rows, pooler.strides)
    ]
    return torch.cat(pooled)[torch.cat(rows).argsort()]


def _box_features(head: BoxHead, x: Tensor) -> Tensor:
    """Return what the box head returns, with its linear layers as matrix products instead of convolutions."""
    for name, layer in head.named_children():
        x = F.relu(layer(x.flatten(1))) if name.startswith("fc") else layer(x)
    return x.flatten(1)
