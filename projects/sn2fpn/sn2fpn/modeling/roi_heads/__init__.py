"""The second stage: heads that classify, refine and segment the proposals (Fast R-CNN, 2015; Mask R-CNN, 2017)."""

from .box_head import BoxHead, BoxPredictor
from .build import build_roi_heads
from .mask_head import MaskHead
from .pooler import ROIPooler
from .standard import StandardROIHeads

__all__ = ["BoxHead", "BoxPredictor", "MaskHead", "ROIPooler", "StandardROIHeads", "build_roi_heads"]
