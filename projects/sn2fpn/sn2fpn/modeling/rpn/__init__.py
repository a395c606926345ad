"""The first stage: a region proposal network on the maps of a pyramid (Faster R-CNN, Ren et al., 2015)."""

from .anchors import AnchorGenerator
from .head import RPNHead
from .rpn import RPN, build_rpn

__all__ = ["RPN", "AnchorGenerator", "RPNHead", "build_rpn"]
