"""Detectron2's `data.datasets`: the readers of data sets and their registration."""

from __future__ import annotations

from ...data import VOC_CLASSES, load_coco_json, load_voc_instances, register_coco_instances, register_pascal_voc
from ..absent import absent

__all__ = ["CLASS_NAMES", "load_coco_json", "load_voc_instances", "register_coco_instances", "register_pascal_voc"]

__getattr__ = absent(__name__, __all__)

CLASS_NAMES = VOC_CLASSES
