"""Count the parameters, multiply-adds and activations of each part of a detector with fvcore."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .detector import GeneralizedRCNN

__all__ = ["PARTS", "Analysis", "analyze", "sum_by_part"]

PARTS = {
    "trunk": ["backbone.bottom_up"],
    "pyramid": ["backbone"],
    "RPN": ["proposal_generator.rpn_head"],
    "box head": ["roi_heads.box_head", "roi_heads.box_predictor"],
    "mask head": ["roi_heads.mask_head"],
}
"""The modules of each part. The trunk is inside the pyramid's module but is not counted as part of the pyramid."""


class Analysis(NamedTuple):
    """The counts of each part of a detector.

    Attributes:
        size: the (height, width) of the padded input.
        parameters: number of parameters by part.
        flops: number of multiply-adds by part.
        activations: number of activations by part.
        uncounted: how often each operator occurs that has no counting rule.
    """

    size: tuple[int, int]
    parameters: dict[str, int]
    flops: dict[str, int]
    activations: dict[str, int]
    uncounted: Counter[str]


class _LearnedParts(nn.Module):
    """The modules of a detector that have parameters, called one after the other.

    Inputs and outputs are tensors, so that the module can be traced.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, *pooled: Tensor) -> tuple[Tensor, ...]:
        """Call all parts.

        Args:
            images (Tensor[1, 3, H, W]): one image.
            *pooled: the pooled features (Tensor[R, C, P, P]) for the box head and, if there is one, the mask head.
        """
        maps = self.detector.backbone(images)
        rpn, heads = self.detector.proposal_generator, self.detector.roi_heads
        logits, deltas = rpn.rpn_head([maps[name] for name in rpn.in_features])
        out = [*logits, *deltas]
        for stage in heads.stages:
            out += stage.predictor(stage.head(pooled[0]))
        return (*out, heads.mask_head(pooled[1])) if len(pooled) > 1 else tuple(out)


def analyze(detector: GeneralizedRCNN, size: tuple[int, int]) -> Analysis:
    """Count the parts of a detector for one image.

    A flop is a multiply-add of a convolution, matrix product, norm or interpolation. Deformable convolutions are
    included, but not their sampling. An activation is an output element of a convolution or matrix product. The heads
    are counted for the largest number of boxes: the RPN's `post_nms_topk` proposals in the box head and the RoI heads'
    `max_detections` detections in the mask head.

    Args:
        detector: a detector on the CPU. It is left in evaluation mode.
        size: the (height, width) of the input before padding.
    """
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis  # It warns when it is imported before sn2fpn.

    logging.getLogger("fvcore").setLevel(logging.ERROR)  # `uncounted` holds what its warnings say.
    step = detector.backbone.size_divisibility
    height, width = (-(-side // step) * step for side in size)
    channels = next(iter(detector.backbone.output_shape().values())).channels
    heads = detector.roi_heads
    boxes = [(detector.proposal_generator.post_nms_topk[1], heads.box_pooler)]
    if heads.mask_head is not None:
        boxes.append((heads.max_detections, heads.mask_pooler))
    inputs = [torch.zeros(1, 3, height, width)]
    inputs += [torch.zeros(max(count, 1), channels, p.output_size, p.output_size) for count, p in boxes]
    model = _LearnedParts(detector.eval())
    flop_counter, activation_counter = (
        kind(model, tuple(inputs))
        .set_op_handle("torchvision::deform_conv2d", deform_conv)
        .unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        for kind, deform_conv in (
            (FlopCountAnalysis, _deform_conv_flops),
            (ActivationCountAnalysis, _deform_conv_activations),
        )
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # Tracing warns of shapes that vary; here they are constant.
        flops, activations = (
            {name.removeprefix("detector."): n for name, n in counter.by_module().items()}
            for counter in (flop_counter, activation_counter)
        )
        uncounted = flop_counter.unsupported_ops()
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in detector.named_modules()}
    return Analysis((height, width), *map(sum_by_part, (parameters, flops, activations)), uncounted)


def sum_by_part(by_module: Mapping[str, float]) -> dict[str, int]:
    """Return the counts of the parts from those of modules by name, which include all submodules."""
    out = {part: round(sum(by_module.get(name, 0) for name in names)) for part, names in PARTS.items()}
    out["pyramid"] -= out["trunk"]
    return out


def _deform_conv_flops(inputs: Iterable[Any], outputs: Iterable[Any]) -> float:
    """Return the flops of a plain convolution of that size: output elements times inputs of each."""
    weight = list(inputs)[1].type().sizes()
    return float(prod(next(iter(outputs)).type().sizes()) * prod(weight[1:]))


def _deform_conv_activations(_: Iterable[Any], outputs: Iterable[Any]) -> float:
    return float(prod(next(iter(outputs)).type().sizes()))
