"""Detectron2's `data.catalog`: how data sets are read, and what is known about them."""

from __future__ import annotations

from ...data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from ..absent import absent

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]

__getattr__ = absent(__name__, __all__)
