"""The two-stage detector: trunk, proposals, RoI heads, and what turns a configuration into one."""

from .backbone import build_backbone
from .build import build_model
from .detector import GeneralizedRCNN
from .metrics import collect_metrics

__all__ = ["GeneralizedRCNN", "build_backbone", "build_model", "collect_metrics"]
