"""The second stage: heads that classify, refine and segment the proposals (Fast, Mask and Cascade R-CNN)."""

from .box_head import BoxHead, BoxPredictor
from .build import build_roi_heads, cascade_stages, check_cascade
from .cascade import CascadeROIHeads
from .mask_head import MaskHead
from .pooler import ROIPooler
from .standard import StandardROIHeads

__all__ = [
    "BoxHead",
    "BoxPredictor",
    "CascadeROIHeads",
    "MaskHead",
    "ROIPooler",
    "StandardROIHeads",
    "build_roi_heads",
    "cascade_stages",
    "check_cascade",
]
