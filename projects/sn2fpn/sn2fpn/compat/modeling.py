"""Detectron2's `modeling`: the detector and its parts, with Detectron2's arguments and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..config import CfgNode
from ..errors import check_choice
from ..modeling import RPN, AnchorGenerator, BoxCoder, CascadeROIHeads, GeneralizedRCNN, StandardROIHeads, build_model
from ..modeling import Matcher as _Matcher
from ..modeling import ROIPooler as _ROIPooler
from ..modeling import build_backbone as _build_backbone
from ..modeling.roi_heads import build_roi_heads
from ..modeling.roi_heads.mask_pasting import paste_masks
from ..modeling.roi_heads.postprocess import rescale_boxes
from ..modeling.rpn import build_rpn
from ..pyramids import FPN
from ..structures import Boxes, Instances, ShapeSpec
from .absent import absent

__all__ = [
    "FPN",
    "RPN",
    "Box2BoxTransform",
    "CascadeROIHeads",
    "DefaultAnchorGenerator",
    "GeneralizedRCNN",
    "Matcher",
    "ROIPooler",
    "StandardROIHeads",
    "build_anchor_generator",
    "build_backbone",
    "build_model",
    "build_proposal_generator",
    "build_roi_heads",
    "detector_postprocess",
]

__getattr__ = absent(__name__, __all__)

build_proposal_generator = build_rpn


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Return detections in the pixels of an image of (output_height, output_width), without boxes that are empty there.

    Args:
        results: detections in the pixels of the image that the model saw. They are not changed.
        output_height: height of the image in pixels.
        output_width: width of the image in pixels.
        mask_threshold: the probability from which on a pixel belongs to a mask.
    """
    rescaled = rescale_boxes(results, output_height, output_width)
    if rescaled.has("pred_masks"):
        probabilities, boxes = rescaled.pred_masks[:, 0], rescaled.pred_boxes.tensor
        rescaled.pred_masks = paste_masks(probabilities, boxes, (output_height, output_width), mask_threshold)
    return rescaled


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> nn.Module:
    """Return the trunk and the pyramid of a configuration; `input_shape` has no effect, the images have 3 channels."""
    return _build_backbone(cfg)


class Matcher(_Matcher):
    """The `Matcher` of this package with Detectron2's argument `allow_low_quality_matches`."""

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality_matches: bool = False
    ) -> None:
        super().__init__(thresholds, labels, allow_low_quality_matches)


class Box2BoxTransform(BoxCoder):
    """The `BoxCoder` of this package with Detectron2's methods, whose offsets lie flat (Tensor[N, K * 4])."""

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Return the offsets (Tensor[N, 4]) that turn `src_boxes` (Tensor[N, 4]) into `target_boxes` (Tensor[N, 4])."""
        return self.encode(src_boxes, target_boxes)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes (Tensor[N, K * 4]) that K offsets per box (Tensor[N, K * 4]) of `boxes` lead to."""
        return self.decode(deltas.unflatten(1, (-1, 4)), boxes[:, None]).flatten(1)


class DefaultAnchorGenerator(AnchorGenerator):
    """The `AnchorGenerator` of this package, which returns `Boxes`. Its `offset` is 0.5 by default, as in Detectron2.

    It takes its arguments, or a configuration and the shapes of the levels.
    """

    def __init__(
        self,
        sizes: Sequence[Any] | CfgNode,
        aspect_ratios: Sequence[Any],
        strides: Sequence[int] = (),
        offset: float = 0.5,
    ) -> None:
        if isinstance(sizes, CfgNode):
            c, strides = sizes.MODEL.ANCHOR_GENERATOR, [shape.stride for shape in aspect_ratios]
            sizes, aspect_ratios, offset = c.SIZES, c.ASPECT_RATIOS, c.OFFSET
        super().__init__(sizes, aspect_ratios, strides, offset)

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:  # type: ignore[override]
        """Return the anchors of each level; see `AnchorGenerator.forward`."""
        return [Boxes(anchors) for anchors in super().forward(features)]


def build_anchor_generator(cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> DefaultAnchorGenerator:
    """Return the anchor generator of a configuration for levels of the given shapes."""
    return DefaultAnchorGenerator(cfg, input_shape)


class ROIPooler(_ROIPooler):
    """The `ROIPooler` of this package with Detectron2's arguments.

    Args:
        output_size: side P of the output in bins.
        scales: one divided by the stride of each map, fine to coarse.
        sampling_ratio: see the class of this package.
        pooler_type: "ROIAlignV2" or "ROIAlign".
        canonical_box_size: side in pixels of a square box that belongs to the map of stride `2**canonical_level`.
    """

    def __init__(
        self,
        output_size: int,
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: float = 224,
        canonical_level: int = 4,
    ) -> None:
        check_choice("pooler_type", pooler_type, ("ROIAlignV2", "ROIAlign"))
        strides = [round(1 / scale) for scale in scales]
        aligned, size = pooler_type == "ROIAlignV2", canonical_box_size * 2.0 ** (4 - canonical_level)
        super().__init__(output_size, strides, int(sampling_ratio), aligned, size)

    def forward(self, x: Sequence[Tensor], box_lists: Sequence[Boxes]) -> Tensor:  # type: ignore[override]
        """Return the features (Tensor[K, C, P, P]) of the boxes of all images, in their order."""
        if not box_lists:
            return x[0].new_zeros(0, x[0].shape[1], self.output_size, self.output_size)
        return super().forward(x, [boxes.tensor for boxes in box_lists])
