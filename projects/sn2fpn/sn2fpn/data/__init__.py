"""Data sets: catalogs, readers for COCO, Pascal VOC and synthetic shapes, augmentation, samplers and loaders."""

from .augmentation import RandomCrop, RandomFlip, ResizeShortestEdge, ScaleJitter, build_augmentations
from .builtin import register_builtin
from .catalog import DatasetCatalog, MetadataCatalog, check_registered, class_names, data_root
from .categories import known_categories
from .custom import register_custom
from .fingerprint import dataset_fingerprint
from .formats.coco import load_coco_json, register_coco_instances
from .formats.examples import register_examples
from .formats.voc import VOC_CLASSES, load_voc_instances, register_pascal_voc
from .images import read_image
from .loader import BatchLoader, build_test_loader, build_train_loader, make_test_loader, make_train_loader
from .mapper import DatasetMapper, build_mapper
from .mixing import CopyPaste, Mosaic
from .photometric import PhotometricDistortion
from .samplers import SAMPLERS
from .selection import check_classes, check_num_classes, evenly_spread, get_dataset_dicts, images_with_objects
from .statistics import class_histogram

__all__ = [
    "BatchLoader",
    "CopyPaste",
    "DatasetCatalog",
    "DatasetMapper",
    "MetadataCatalog",
    "Mosaic",
    "PhotometricDistortion",
    "RandomCrop",
    "RandomFlip",
    "ResizeShortestEdge",
    "SAMPLERS",
    "ScaleJitter",
    "VOC_CLASSES",
    "build_augmentations",
    "build_mapper",
    "build_test_loader",
    "build_train_loader",
    "check_classes",
    "check_num_classes",
    "check_registered",
    "class_histogram",
    "class_names",
    "data_root",
    "dataset_fingerprint",
    "evenly_spread",
    "get_dataset_dicts",
    "images_with_objects",
    "known_categories",
    "load_coco_json",
    "load_voc_instances",
    "make_test_loader",
    "make_train_loader",
    "read_image",
    "register_coco_instances",
    "register_custom",
    "register_examples",
    "register_pascal_voc",
]

register_builtin()
