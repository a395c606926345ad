"""The formats of data sets, with one reader for each, and the recognition of the format of a file or folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .coco import read_coco, read_lvis
from .cvat import cvat_splits, read_cvat
from .labelme import read_labelme
from .recognise import AUTO, Place, find_places
from .source import Reader, Source
from .voc import read_voc
from .voc_files import find_splits
from .yolo import read_yolo, yolo_splits

__all__ = ["AUTO", "FORMATS", "Format", "Place", "Source", "find_places"]


class Format(NamedTuple):
    """A format of data sets.

    Args:
        title: its name in messages.
        read: its reader.
        keys: what an entry of `DATASETS.CUSTOM` may have besides ANNOTATIONS, as a `Source` has it. SPLIT may also name
            one of the files in a folder; see `find_places`.
        splits: returns the parts that a data set in this format has; without it, a file or folder is one part.
    """

    title: str
    read: Reader
    keys: tuple[str, ...]
    splits: Callable[[Source], list[str]] | None = None


FORMATS = {
    "coco": Format("COCO", read_coco, ("IMAGES",)),
    "voc": Format("Pascal VOC", read_voc, ("IMAGES", "SPLIT", "CLASSES", "YEAR"), lambda s: find_splits(s.annotations)),
    "yolo": Format("YOLO", read_yolo, ("IMAGES", "SPLIT"), yolo_splits),
    "labelme": Format("LabelMe", read_labelme, ("IMAGES", "CLASSES")),
    "cvat": Format("CVAT for images", read_cvat, ("IMAGES", "SPLIT", "CLASSES"), cvat_splits),
    "lvis": Format("LVIS", read_lvis, ("IMAGES",)),
}
"""The formats by the value of `FORMAT`."""
