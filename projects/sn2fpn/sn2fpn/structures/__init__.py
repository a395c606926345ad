"""Boxes, per-image annotations or predictions, and padded batches (Detectron2's interfaces)."""

from .boxes import Boxes, BoxMode, pairwise_iou
from .image_list import ImageList
from .instances import Instances
from .shape_spec import ShapeSpec

__all__ = ["BoxMode", "Boxes", "ImageList", "Instances", "ShapeSpec", "pairwise_iou"]
