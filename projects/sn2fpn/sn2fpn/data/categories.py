"""The classes of data sets whose files may be missing, for prediction and for exported results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .catalog import MetadataCatalog
from .coco import read_categories

__all__ = ["COCO_CATEGORIES", "Category", "known_categories"]

logger = logging.getLogger(__name__)

Category = dict[str, Any]  # "id" (the data set's own) and "name"

_LARGE_BYTES = 64 << 20  # reading a larger annotation file takes seconds

_COCO_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
_COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # COCO (Lin et al., 2014) annotates 80 of 90 numbers
_COCO_IDS = [i for i in range(1, 91) if i not in _COCO_UNUSED]
COCO_CATEGORIES = dict(zip(_COCO_IDS, _COCO_NAMES.split(", "), strict=True))
"""The names of COCO's classes by category id."""


def known_categories(names: Sequence[str], num_classes: int) -> list[Category]:
    """Return the classes of a model that was trained on the named data sets, by contiguous id, as COCO categories.

    The classes come from the first data set that has as many classes as the model. They are read from its annotation
    file if the file exists and is not large, and from its metadata otherwise. If no data set helps, the classes are
    called "class 0", "class 1", …, and have their contiguous ids.

    Args:
        names: registered data sets in the order of preference; slices are allowed.
        num_classes: number of classes of the model.
    """
    for name in dict.fromkeys(name.partition("[")[0] for name in names):
        categories = _categories(name)
        if len(categories) == num_classes:
            return categories
        if categories:
            logger.warning(
                "data set %r has %d classes but the model has %d, so its class names are not used",
                name,
                len(categories),
                num_classes,
            )
    logger.warning("the names of the model's %d classes are unknown, so they are called 'class 0', …", num_classes)
    return [{"id": i, "name": f"class {i}"} for i in range(num_classes)]


def _categories(name: str) -> list[Category]:
    """Return what is known about the classes of a data set; the list is empty if nothing is known."""
    metadata = MetadataCatalog.get(name)
    names, own_ids = metadata.get("thing_classes"), metadata.get("thing_dataset_id_to_contiguous_id")
    file = metadata.get("json_file")
    if not (names and own_ids) and file and Path(file).is_file() and Path(file).stat().st_size <= _LARGE_BYTES:
        try:
            own_ids, names = read_categories(file)
        except UserError as e:
            logger.warning("%s", e)
    if names:
        ids = sorted(own_ids, key=own_ids.__getitem__) if own_ids else range(len(names))
        return [{"id": i, "name": n} for i, n in zip(ids, names, strict=True)]
    if name.startswith(("coco_2014_", "coco_2017_")):
        return [{"id": i, "name": n} for i, n in COCO_CATEGORIES.items()]
    return []
