"""The classes of data sets whose files may be missing, for prediction and for exported results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .catalog import MetadataCatalog, whole_name
from .formats.coco import read_categories
from .values import clean_name

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


def known_categories(names: Sequence[str], num_classes: int, trained: Sequence[str] = ()) -> list[Category]:
    """Return the classes of a model that was trained on the named data sets, by contiguous id, as COCO categories.

    The classes come from the first data set that has as many classes as the model. They are read from its annotation
    file if the file exists and is not large, and from its metadata otherwise. If no data set helps, the classes are
    called "class 0", "class 1", …, and have their contiguous ids.

    The names that a checkpoint carries count more than those of any data set, because the weights were trained on them,
    whereas the data set of that name may be another one here. The ids are still those of the data set if it has the
    same names, in any order, and contiguous otherwise. A warning says where the two differ.

    Args:
        names: registered data sets in the order of preference; slices are allowed.
        num_classes: number of classes of the model.
        trained: the class names in the model's checkpoint by contiguous id; none if it has none.
    """
    trained = [clean_name(name) for name in trained]
    if trained and len(trained) != num_classes:
        problem = "the checkpoint names %d classes but the model has %d, so the names in the checkpoint are not used"
        logger.warning(problem, len(trained), num_classes)
        trained = []
    for name in dict.fromkeys(map(whole_name, names)):
        categories = _categories(name)
        if len(categories) == num_classes:
            return _renamed(categories, trained, name) if trained else categories
        if categories:
            logger.warning(
                "data set %r has %d classes but the model has %d, so its class names are not used",
                name,
                len(categories),
                num_classes,
            )
    if trained:
        return [{"id": i, "name": name} for i, name in enumerate(trained)]
    logger.warning("the names of the model's %d classes are unknown, so they are called 'class 0', …", num_classes)
    return [{"id": i, "name": f"class {i}"} for i in range(num_classes)]


def _renamed(categories: list[Category], trained: Sequence[str], set_name: str) -> list[Category]:
    """Return the categories with the checkpoint's names, and with the ids of a data set that has the same names."""
    names = [c["name"] for c in categories]
    if names == list(trained):
        return categories
    at = next(i for i, (theirs, ours) in enumerate(zip(trained, names)) if theirs != ours)
    same = sorted(names) == sorted(trained) and len(set(names)) == len(names)
    logger.warning(
        "class %d is %r in the checkpoint but %r in data set %r; the names in the checkpoint are used%s",
        at,
        trained[at],
        names[at],
        set_name,
        "" if same else ", with the ids 0, 1, …",
    )
    ids = {c["name"]: c["id"] for c in categories} if same else {}
    return [{"id": ids.get(name, i), "name": name} for i, name in enumerate(trained)]


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
