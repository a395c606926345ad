"""Detectron2's `data.datasets`: the readers of data sets and their registration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...data import VOC_CLASSES, load_voc_instances, register_coco_instances, register_pascal_voc
from ...data import load_coco_json as _load_coco_json
from ...data.records import DatasetDicts
from ..absent import absent, refuse

__all__ = ["CLASS_NAMES", "load_coco_json", "load_voc_instances", "register_coco_instances", "register_pascal_voc"]

__getattr__ = absent(__name__, __all__)

CLASS_NAMES = VOC_CLASSES


def load_coco_json(
    json_file: str | Path,
    image_root: str | Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
    *,
    allow_outside: bool = False,
) -> DatasetDicts:
    """Read a COCO instances file; see `sn2fpn.data.load_coco_json`. `extra_annotation_keys` must be None or empty."""
    refuse(None, extra_annotation_keys=extra_annotation_keys or None)
    return _load_coco_json(json_file, image_root, dataset_name, allow_outside=allow_outside)
