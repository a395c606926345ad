"""Which data a run uses: reading the named sets, filtering, and checking classes against the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from .catalog import DatasetCatalog, DatasetDicts, as_names, class_names

__all__ = ["get_dataset_dicts", "check_classes"]

logger = logging.getLogger(__name__)


def get_dataset_dicts(names: str | Sequence[str], filter_empty: bool = False, where: str = "") -> DatasetDicts:
    """Read one or several sets as one list of data set dicts.

    Args:
        filter_empty: leave out images without boxes, and those whose boxes are all crowds.
        where: the key that holds the names, for messages.

    Raises:
        UserError: unknown names, unreadable sets, sets with different classes, or nothing left.
    """
    names = as_names(names)
    dicts = [record for name in names for record in DatasetCatalog.get(name, where)]
    _check_same_classes(names)
    if not dicts:
        raise UserError(f"data set {', '.join(names)}: has no images")
    if not filter_empty:
        return dicts
    usable = [d for d in dicts if any(not a.get("iscrowd", 0) for a in d["annotations"])]
    if not usable:
        raise UserError(f"data set {', '.join(names)}: none of its {len(dicts)} images has a box to train on "
                        "(DATALOADER.FILTER_EMPTY_ANNOTATIONS leaves out images without boxes)")
    if len(usable) < len(dicts):
        logger.info("%d of %d images have no box and are left out (DATALOADER.FILTER_EMPTY_ANNOTATIONS)",
                    len(dicts) - len(usable), len(dicts))
    return usable


def check_classes(cfg: Any, names: str | Sequence[str]) -> list[str]:
    """The class names that the model and all the named sets agree on.

    Raises:
        UserError: sets differ in their classes, or `MODEL.ROI_HEADS.NUM_CLASSES` is not their number.
    """
    names = as_names(names)
    classes = _check_same_classes(names)
    expected = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if len(classes) != expected:
        shown = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
        raise UserError(f"MODEL.ROI_HEADS.NUM_CLASSES is {expected}, but data set {names[0]!r} has {len(classes)} "
                        f"classes ({shown}): set MODEL.ROI_HEADS.NUM_CLASSES {len(classes)}")
    return classes


def _check_same_classes(names: list[str]) -> list[str]:
    first = class_names(names[0])
    for name in names[1:]:
        other = class_names(name)
        if other != first:
            i = next((i for i, (a, b) in enumerate(zip(first, other)) if a != b), min(len(first), len(other)))
            a, b = (repr(c[i]) if i < len(c) else "nothing" for c in (first, other))
            raise UserError(f"data sets {names[0]!r} and {name!r} have different classes "
                            f"({len(first)} and {len(other)}; class {i} is {a} and {b}): "
                            "use sets with the same class list together")
    return first
