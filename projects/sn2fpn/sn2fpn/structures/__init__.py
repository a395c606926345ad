"""Boxes, masks, the annotations or predictions of an image, and padded batches, with Detectron2's interfaces."""

from .box_mode import BoxMode, box_of
from .boxes import Boxes, pairwise_iou
from .image_list import ImageList
from .instances import Instances
from .masks import BitMasks, PolygonMasks, masks_to_rle, polygons_to_bitmask
from .run_lengths import RunLengthMasks
from .shape_spec import ShapeSpec

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "RunLengthMasks",
    "ShapeSpec",
    "box_of",
    "masks_to_rle",
    "pairwise_iou",
    "polygons_to_bitmask",
]
