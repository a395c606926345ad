"""The built-in data sets, found under `$DETECTRON2_DATASETS` in Detectron2's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .catalog import DatasetCatalog, MetadataCatalog, data_root
from .formats.coco import read_coco_once
from .formats.voc import VOC_CLASSES, read_voc_once
from .photos import CLASS_SETS, SPLITS
from .records import Records
from .shapes import CLASSES as SHAPE_CLASSES
from .shapes import ensure_shapes

__all__ = ["register_builtin"]

_COCO = {  # name -> (folder of the images, annotation file); the test sets have no annotations
    "coco_2014_train": ("train2014", "instances_train2014"),
    "coco_2014_val": ("val2014", "instances_val2014"),
    "coco_2014_minival": ("val2014", "instances_minival2014"),
    "coco_2014_valminusminival": ("val2014", "instances_valminusminival2014"),
    "coco_2017_train": ("train2017", "instances_train2017"),
    "coco_2017_val": ("val2017", "instances_val2017"),
    "coco_2017_val_100": ("val2017", "instances_val2017_100"),
    "coco_2017_test": ("test2017", "image_info_test2017"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017"),
}
_VOC = {2007: ("train", "val", "trainval", "test"), 2012: ("train", "val", "trainval")}
_SHAPES = ("train", "val")


def register_builtin() -> None:
    """Register all built-in data sets. The root folder is looked up when a data set is loaded."""
    for name, (folder, json_name) in _COCO.items():
        _register_coco(name, lambda: data_root() / "coco", folder, json_name)
    for year, splits in _VOC.items():
        for split in splits:
            _register_voc(f"voc_{year}_{split}", year, split)
    for classes in CLASS_SETS:
        for split in SPLITS:
            _register_photos(f"photos{classes}_{split}")
    for split in _SHAPES:
        name = f"shapes_{split}"
        _register_coco(name, lambda: ensure_shapes(data_root() / "shapes"), split, f"instances_{split}")
        MetadataCatalog.get(name).set(
            thing_classes=list(SHAPE_CLASSES),
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(SHAPE_CLASSES))},
        )


def _register_coco(name: str, find_root: Callable[[], Path], folder: str, json_name: str) -> None:
    def load() -> Records:
        root = find_root()
        json_file, image_root = root / "annotations" / f"{json_name}.json", root / folder
        MetadataCatalog.get(name).set(json_file=str(json_file), image_root=str(image_root))
        return read_coco_once(json_file, image_root, name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="coco")


def _register_photos(name: str) -> None:
    def load() -> Records:
        root = data_root() / "photos"
        json_file, image_root = root / f"{name}.json", root / "images"
        MetadataCatalog.get(name).set(json_file=str(json_file), image_root=str(image_root))
        return read_coco_once(json_file, image_root, name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="coco")


def _register_voc(name: str, year: int, split: str) -> None:
    def load() -> Records:
        root = data_root() / f"VOC{year}"
        MetadataCatalog.get(name).set(dirname=str(root))
        return read_voc_once(root, split, VOC_CLASSES, name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="pascal_voc", year=year, split=split, thing_classes=list(VOC_CLASSES))
