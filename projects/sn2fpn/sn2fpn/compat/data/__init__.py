"""Detectron2's `data`: catalogs of data sets, loaders and the mapper."""

from __future__ import annotations

from ...data import DatasetCatalog, MetadataCatalog
from ...data.catalog import Metadata
from ..absent import absent
from . import catalog, datasets, detection_utils, samplers, transforms
from .build import build_detection_test_loader, build_detection_train_loader, get_detection_dataset_dicts
from .dataset_mapper import DatasetMapper

__all__ = [
    "DatasetCatalog",
    "DatasetMapper",
    "Metadata",
    "MetadataCatalog",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "catalog",
    "datasets",
    "detection_utils",
    "get_detection_dataset_dicts",
    "samplers",
    "transforms",
]

__getattr__ = absent(__name__, __all__)
