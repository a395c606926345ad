"""The two-stage detector: trunk, proposals, RoI heads, and what turns a configuration into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .backbone import build_backbone
from .build import build_model
from .detector import GeneralizedRCNN
from .metrics import collect_metrics

if TYPE_CHECKING:
    from ..predict.predictor import Predictor

__all__ = ["GeneralizedRCNN", "Predictor", "build_backbone", "build_model", "collect_metrics"]


def __getattr__(name: str) -> Any:
    """`Predictor` loads on first use: it stands above models, as it reads pictures and checkpoints."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..predict.predictor import Predictor

    return Predictor
