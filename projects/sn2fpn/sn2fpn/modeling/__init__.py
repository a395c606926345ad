"""The two-stage detector: a trunk, a pyramid, region proposals and RoI heads.

`build_model` makes one from a configuration. The classes below are its parts, from which Python configurations and
other programs put a detector together.
"""

from __future__ import annotations

from typing import Any

from .backbone import build_backbone
from .box_coding import BoxCoder
from .build import build_model
from .detector import GeneralizedRCNN
from .losses import loss_names
from .matching import Matcher
from .metrics import collect_metrics
from .multi_view import MultiViewDetector, build_multi_view
from .roi_heads import BoxHead, BoxPredictor, CascadeROIHeads, MaskHead, ROIPooler, StandardROIHeads, cascade_stages
from .rpn import RPN, AnchorGenerator, RPNHead
from .soft_nms import SoftNMS

__all__ = [
    "AnchorGenerator",
    "BoxCoder",
    "BoxHead",
    "BoxPredictor",
    "CascadeROIHeads",
    "GeneralizedRCNN",
    "MaskHead",
    "Matcher",
    "MultiViewDetector",
    "ROIPooler",
    "RPN",
    "RPNHead",
    "SoftNMS",
    "StandardROIHeads",
    "build_backbone",
    "build_model",
    "build_multi_view",
    "cascade_stages",
    "collect_metrics",
    "loss_names",
]


def __getattr__(name: str) -> Any:
    """Tell callers of the old name where `Predictor` is now."""
    if name == "Predictor":
        raise ImportError("Predictor is not in sn2fpn.modeling any more; write: from sn2fpn.predict import Predictor")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
