"""Detectron2's `data.transforms`: augmentations draw transforms, which move an image and its annotations.

The changes of size, flips and crops are those of `sn2fpn.data`. Random numbers come from NumPy's global generator, as
in Detectron2; the loaders of this package seed it for every image.
"""

from __future__ import annotations

from ...absent import absent
from .augmentation import AugInput, Augmentation, AugmentationList, RandomApply, apply_augmentations
from .augmentation_impl import (
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomSaturation,
    Resize,
    ResizeShortestEdge,
)
from .transform import (
    BlendTransform,
    ColorTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PILColorTransform,
    ResizeTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "BlendTransform",
    "ColorTransform",
    "CropTransform",
    "HFlipTransform",
    "NoOpTransform",
    "PILColorTransform",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomSaturation",
    "Resize",
    "ResizeShortestEdge",
    "ResizeTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
    "apply_augmentations",
]

__getattr__ = absent(__name__, __all__)
